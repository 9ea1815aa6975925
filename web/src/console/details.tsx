/** One machine, looked at: its addresses, what it runs, and each way in with the rule that gives it. */

import type { ComponentChildren } from "preact";
import type { Machine } from "../api/types.ts";
import { rememberAccount, terminalAddress, waysInto } from "../ui/accounts.ts";
import { Dialog } from "../ui/dialog.tsx";
import { DOOR_SAYS, Door, Lamp } from "../ui/drawings.tsx";
import { Account, Copied, Enter, Outside } from "../ui/parts.tsx";
import { moment } from "../ui/times.ts";
import css from "./details.module.css";
import { hasWay, systemName } from "./machines.ts";
import { Belongs, lampOf, WayItems, wayNote } from "./row.tsx";

function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <div class={css.fact}>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

/** What serves ssh there, in words. */
function serves(machine: Machine): string {
  if (machine.ssh === "tailscale") return "Tailscale SSH";
  return machine.ssh === "other" ? "the host's own server" : "the host's own server, if it runs one";
}

export function Details({ machine, base, onClose }: { machine: Machine; base: string; onClose: () => void }) {
  const state = lampOf(machine);
  const seen =
    machine.last_seen === null ? "never seen" : `last seen ${moment(Date.parse(machine.last_seen))}`;
  return (
    <Dialog
      look="wide"
      onClose={onClose}
      title={
        <span class={css.title}>
          <Lamp state={state} />
          <Outside text={machine.name} limit={63} />
        </span>
      }
    >
      <h3 class={css.section}>Your way in</h3>
      {hasWay(machine) ? (
        <ul class={css.ways}>
          {waysInto(machine).map((way) => {
            const rule = machine.ways.find(({ account }) => account === way.account)?.rule;
            return (
              <li key={way.account}>
                <Door
                  state={way.asks ? "ajar" : "open"}
                  label={DOOR_SAYS[way.asks ? "ajar" : "open"]}
                  size={18}
                />
                {way.account === null ? (
                  <span>an account that you name</span>
                ) : (
                  <Account name={way.account} />
                )}
                <span class={css.note}>
                  {[wayNote(machine, way), rule && `${rule.name}, line ${rule.line}`]
                    .filter(Boolean)
                    .join(" · ")}
                </span>
                {way.account !== null && (
                  <Enter
                    asks={way.asks}
                    href={terminalAddress(base, machine.name, way.account)}
                    onClick={() => rememberAccount(machine.name, way.account!)}
                    aria-label={`SSH to ${machine.name} as ${way.account}`}
                  >
                    SSH
                  </Enter>
                )}
              </li>
            );
          })}
          {machine.any_account && (
            <li class={css.named}>
              <WayItems machine={{ ...machine, ways: [] }} base={base} />
            </li>
          )}
        </ul>
      ) : (
        <p class={css.why}>
          <Door state="shut" size={18} />
          {machine.why}
        </p>
      )}
      <h3 class={css.section}>Machine</h3>
      <dl>
        <Fact name="State">{machine.expired ? "key expired" : machine.online ? "online" : seen}</Fact>
        {machine.addresses.map((address) => (
          <Fact key={address} name={address.includes(":") ? "IPv6" : "IPv4"}>
            <Copied text={address} />
          </Fact>
        ))}
        <Fact name="Belongs to">
          <Belongs machine={machine} />
        </Fact>
        <Fact name="System">
          <Outside text={systemName(machine.os)} limit={60} />
        </Fact>
        <Fact name="Client">
          <Outside text={machine.version || "not known"} limit={60} />
        </Fact>
        <Fact name="SSH">{serves(machine)}</Fact>
      </dl>
    </Dialog>
  );
}
