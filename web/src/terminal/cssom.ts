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

/** Elements whose styles are set through the CSSOM, as ``document.createElement`` makes them otherwise. */
function creating(document: Document): (tag: string) => HTMLElement {
  const create = Document.prototype.createElement;
  return (tag) => {
    if (tag === "style") return styleElement(document);
    const element: HTMLElement = create.call(document, tag);
    if (tag === "span") element.setAttribute = setAttribute;
    return element;
  };
}

/** The document, but for what its new elements do with styles. */
export function styling(document: Document): Document {
  const createElement = creating(document);
  return new Proxy(document, {
    get(target, name) {
      if (name === "createElement") return createElement;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
    set: (target, name, value) => Reflect.set(target, name, value, target),
  });
}

/** Runs ``build``, whose new elements are such ones too where it asks the document itself: xterm does for its scroll bar. */
export function whileStyling(document: Document, build: () => void): void {
  document.createElement = creating(document) as typeof document.createElement;
  try {
    build();
  } finally {
    Reflect.deleteProperty(document, "createElement"); // what it hid is the prototype's own
  }
}
