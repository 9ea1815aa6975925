/** Words for what the server says in its own. Pure. */

/** By what somebody signed in, in words. */
export function methodName(method: string): string {
  const [kind, which] = method.split(":", 2);
  if (kind === "provider" && which) return which;
  return { passkey: "passkey", recovery: "recovery code", link: "one-time link" }[kind] ?? "signed in";
}
