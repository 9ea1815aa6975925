/**
 * xterm.js under a content policy that allows no inline style.
 *
 * It puts its colours into style elements, and with the DOM renderer a colour of a cell into a style attribute. A policy of
 * `style-src 'self'` holds both back, and is worth keeping: a style can read a page out. The same rules are allowed where a script of
 * the page's own sets them through the CSSOM, so the page's document makes elements that do that.
 */

const sheets = new WeakMap<HTMLElement, CSSStyleSheet>();

/** A hidden element in the place of a style element: its text becomes a constructed style sheet, which goes when it goes. */
function styleElement(document: Document): HTMLElement {
  const element: HTMLElement = Document.prototype.createElement.call(document, "div");
  element.hidden = true;
  Object.defineProperties(element, {
    textContent: {
      set: (text: string) => {
        let sheet = sheets.get(element);
        if (sheet === undefined) {
          sheet = new CSSStyleSheet();
          sheets.set(element, sheet);
          document.adoptedStyleSheets.push(sheet);
        }
        sheet.replaceSync(text);
      },
    },
    remove: {
      value: () => {
        const sheet = sheets.get(element);
        document.adoptedStyleSheets = document.adoptedStyleSheets.filter((one) => one !== sheet);
        Element.prototype.remove.call(element);
      },
    },
  });
  return element;
}

function setAttribute(this: HTMLElement, name: string, value: string): void {
  if (name === "style") this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
}

/**
 * From now on the document makes elements whose styles are set through the CSSOM.
 *
 * For good, and for whoever asks: xterm takes the document that it is given for some of its elements only, and asks for the
 * spans of a row whenever it draws one.
 */
export function styling(document: Document): void {
  if (Object.hasOwn(document, "createElement")) return;
  const create = Document.prototype.createElement;
  document.createElement = ((tag: string) => {
    if (tag === "style") return styleElement(document);
    const element: HTMLElement = create.call(document, tag);
    if (tag === "span") element.setAttribute = setAttribute;
    return element;
  }) as typeof document.createElement;
}
