/**
 * Tabs of terminals, and up to four of them side by side in one tab; as a value that the browser keeps, so that a reload can offer
 * to open them again.
 */

export const MOST_PANES = 4; // of one tab: half a screen each way is the least that a shell can live in
export const MOST_TABS = 32;
const MOST_NAME = 300; // characters of a machine's or an account's name that are believed

export interface Tab {
  id: string;
  panes: string[];
  focus: string; // the pane that has the keys
}

export interface Layout {
  tabs: Tab[];
  active: string; // a tab's id; "" while there is none
}

export const EMPTY: Layout = { tabs: [], active: "" };

/** A new tab after the active one, which has the keys then. The same layout where there are enough. */
export function withTab(layout: Layout, id: string, pane: string): Layout {
  if (layout.tabs.length >= MOST_TABS) return layout;
  const at = layout.tabs.findIndex((tab) => tab.id === layout.active) + 1;
  const tab = { id, panes: [pane], focus: pane };
  return { tabs: layout.tabs.toSpliced(at === 0 ? layout.tabs.length : at, 0, tab), active: id };
}

/** A terminal beside the one that has the keys. The same layout where the tab is full, or there is none. */
export function withSplit(layout: Layout, pane: string): Layout {
  return changed(layout, layout.active, (tab) => {
    if (tab.panes.length >= MOST_PANES) return tab;
    return { ...tab, panes: tab.panes.toSpliced(tab.panes.indexOf(tab.focus) + 1, 0, pane), focus: pane };
  });
}

/** Without a terminal; a tab goes with its last one, and its neighbour has the keys. */
export function without(layout: Layout, pane: string): Layout {
  const at = layout.tabs.findIndex((tab) => tab.panes.includes(pane));
  const tab = layout.tabs[at];
  if (tab === undefined) return layout;
  if (tab.panes.length > 1) {
    return changed(layout, tab.id, () => {
      const place = tab.panes.indexOf(pane);
      const panes = tab.panes.toSpliced(place, 1);
      return {
        ...tab,
        panes,
        focus: tab.focus === pane ? panes[Math.min(place, panes.length - 1)]! : tab.focus,
      };
    });
  }
  const tabs = layout.tabs.toSpliced(at, 1);
  const active = layout.active === tab.id ? (tabs[Math.min(at, tabs.length - 1)]?.id ?? "") : layout.active;
  return { tabs, active };
}

/** The nth tab has the keys, from 0; 8 is the last one, as in browsers. */
export function tabAt(layout: Layout, index: number): Layout {
  const tab = index === 8 ? layout.tabs.at(-1) : layout.tabs[index];
  return tab === undefined ? layout : { ...layout, active: tab.id };
}

export function focused(layout: Layout, pane: string): Layout {
  const tab = layout.tabs.find((one) => one.panes.includes(pane));
  if (tab === undefined) return layout;
  return { ...changed(layout, tab.id, (one) => ({ ...one, focus: pane })), active: tab.id };
}

/** The next or previous pane of the active tab has the keys. */
export function stepped(layout: Layout, step: 1 | -1): Layout {
  return changed(layout, layout.active, (tab) => {
    const count = tab.panes.length;
    return { ...tab, focus: tab.panes[(tab.panes.indexOf(tab.focus) + step + count) % count]! };
  });
}

/** The pane that has the keys, or undefined where there is none. */
export function current(layout: Layout): string | undefined {
  return layout.tabs.find((tab) => tab.id === layout.active)?.focus;
}

function changed(layout: Layout, id: string, change: (tab: Tab) => Tab): Layout {
  return { ...layout, tabs: layout.tabs.map((tab) => (tab.id === id ? change(tab) : tab)) };
}

// Addresses -----------------------------------------------------------------------------------------------------------------

export interface Place {
  machine: string;
  account: string | null;
}

/** The address of a terminal, from where the pages stand: it can be bookmarked, and opens that terminal. */
export function pathOf(base: string, place: Place): string {
  const account = place.account === null ? "" : `/${encodeURIComponent(place.account)}`;
  return `${base}terminal/${encodeURIComponent(place.machine)}${account}`;
}

// Kept over a reload --------------------------------------------------------------------------------------------------------

/** What was open: for each tab its terminals. */
export type Kept = Place[][];

export function keep(layout: Layout, place: (pane: string) => Place | undefined): string {
  const tabs = layout.tabs.map((tab) => tab.panes.flatMap((pane) => place(pane) ?? []));
  return JSON.stringify(
    tabs.filter((tab) => tab.length > 0).map((tab) => tab.map((one) => [one.machine, one.account])),
  );
}

/** What a browser kept; what makes no sense there is left out. */
export function kept(text: string | null): Kept {
  let value: unknown;
  try {
    value = JSON.parse(text ?? "[]");
  } catch {
    return [];
  }
  if (!Array.isArray(value)) return [];
  const tabs = value.slice(0, MOST_TABS).map((tab: unknown) => {
    if (!Array.isArray(tab)) return [];
    return tab.slice(0, MOST_PANES).flatMap((one: unknown): Place[] => {
      if (!Array.isArray(one)) return [];
      const [machine, account] = one as unknown[];
      if (!isName(machine) || !(account === null || isName(account))) return [];
      return [{ machine, account }];
    });
  });
  return tabs.filter((tab) => tab.length > 0);
}

/** How many terminals there are beside one that is open already. */
export function others(tabs: Kept, here: Place): Kept {
  let skipped = false;
  return tabs
    .map((tab) =>
      tab.filter((one) => {
        if (skipped || one.machine !== here.machine || one.account !== here.account) return true;
        skipped = true;
        return false;
      }),
    )
    .filter((tab) => tab.length > 0);
}

function isName(value: unknown): value is string {
  return typeof value === "string" && value !== "" && value.length <= MOST_NAME;
}
