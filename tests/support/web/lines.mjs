// What every program here speaks: lines of JSON, one asked and one answered (tests/support/house.py).
import { createInterface } from "node:readline";

/** Answer each line {do: NAME, ...} by what `verbs[NAME]` gives or throws. */
export async function serve(verbs) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { do: name, ...given } = JSON.parse(line);
    let answer;
    try {
      answer = { done: (await verbs[name](given)) ?? null };
    } catch (error) {
      answer = { error: error.code ?? error.name, message: String(error.message ?? error), told: told(error) };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
}

function told(error) {
  const { cause } = error;
  const found = { because: String(cause?.message ?? "") };
  for (const name of ["error", "error_description", "status"]) if (error[name] !== undefined) found[name] = error[name];
  if (Array.isArray(cause)) found.challenges = cause.map(({ scheme, parameters }) => ({ scheme, ...parameters }));
  return found;
}

/** Have this program's clock be off by so many seconds. */
export function shiftClock(seconds) {
  const now = Date.now.bind(Date);
  const Real = Date;
  globalThis.Date = class extends Real {
    constructor(...given) {
      super(...(given.length ? given : [Real.now()]));
    }
  };
  Real.now = () => now() + seconds * 1000;
  globalThis.Date.now = Real.now;
}
