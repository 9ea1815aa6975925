/** What the server puts into a page, so that the first thing painted is true. */

let read: unknown;

/** The page's own data; read once. Throws where the page has none, which is a fault of the server's. */
export function bootstrap<T>(): T {
  if (read === undefined) {
    const element = document.getElementById("bootstrap");
    if (element === null) throw new Error("the page holds no data: no element has the id bootstrap");
    read = JSON.parse(element.textContent ?? "");
  }
  return read as T;
}

/** What every page of the console knows from the start. */
export interface Common {
  /** The path under which the console stands; ends with a slash. */
  base: string;
  tailnet: string;
  version: string;
}
