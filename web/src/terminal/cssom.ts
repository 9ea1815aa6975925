/**
 * xterm.js under a content policy that allows no inline style.
 *
 * It puts its colours into style elements, and with the DOM renderer a colour of a cell into a style attribute. A policy of
 * `style-src 'self'` holds both back, and is worth keeping: a style can read a page out. The same rules are allowed where a script of
 * the page's own sets them through the CSSOM, so xterm is given a document whose elements do that.
 */

const sheets = new WeakMap<HTMLElement, CSSStyleSheet>();

/** A hidden element in the place of a style element: its text becomes a constructed style sheet, which goes when it goes. */
function styleElement(document: Document): HTMLElement {
  const element = document.createElement("div");
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

/** The document, but for what its new elements do with styles. */
export function styling(document: Document): Document {
  const create = (tag: string): HTMLElement => {
    if (tag === "style") return styleElement(document);
    const element = document.createElement(tag);
    if (tag === "span") element.setAttribute = setAttribute;
    return element;
  };
  return new Proxy(document, {
    get(target, name) {
      if (name === "createElement") return create;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
    set: (target, name, value) => Reflect.set(target, name, value, target),
  });
}
