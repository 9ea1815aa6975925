/** What stands there while there is nothing: how to add the first machine, and a page that changes when it comes. */

import { Lamp, LargeDoor } from "../ui/drawings.tsx";
import { Button, Command } from "../ui/parts.tsx";
import css from "./empty.module.css";

/** The one command that a machine joins with. A machine that serves ssh by itself is one that this page opens. */
export function joinCommand(control: string): string {
  return `sudo tailscale up --ssh --login-server ${control}`;
}

export function NoMachines({ control, live }: { control: string; live: boolean }) {
  return (
    <section class={css.empty}>
      <LargeDoor state="open" label="The door is open" opening={0.88} width={230} />
      <div class={css.text}>
        <h1>
          The door is open.
          <br />
          Bring the first machine.
        </h1>
        <p>
          Any machine with Tailscale can join. It keeps its own keys, and gets a name and an address here.
        </p>
        <ol class={css.steps}>
          <li>
            <span aria-hidden="true">1</span> Install Tailscale, if it is not there yet.
          </li>
          <li>
            <span aria-hidden="true">2</span> Point it here. It shows a link; open it and say yes.
          </li>
        </ol>
        <Command text={joinCommand(control)} />
        <p class={css.small}>
          Without <code>--ssh</code> the machine joins, and serves no ssh of its own.
        </p>
        {live && (
          <p class={css.waits}>
            <Lamp state="waits" label="" />
            Listening for the first knock. This page changes by itself.
          </p>
        )}
      </div>
    </section>
  );
}

export function NothingFound({ onAll }: { onAll: () => void }) {
  return (
    <div class={css.nothing} role="presentation">
      <p>No machine is like that.</p>
      <Button onClick={onAll}>Show all</Button>
    </div>
  );
}
