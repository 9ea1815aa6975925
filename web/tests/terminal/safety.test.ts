import { describe, expect, it } from "vitest";
import {
  checkPath,
  cleanLine,
  cleanLines,
  linksIn,
  MOST_CLIPBOARD,
  offeredToClipboard,
  safeLink,
} from "../../src/terminal/safety.ts";

describe("a line from outside", () => {
  it("has no control characters, no direction marks and an end", () => {
    expect(cleanLine("web-1\u0007\u001b]0;x\u202egnp.exe")).toBe("web-1 ]0;x gnp.exe");
    expect(cleanLine("  a \u200b\u2066 b  ")).toBe("a b");
    expect(Array.from(cleanLine("é".repeat(500)))).toHaveLength(120);
    expect(cleanLine("x".repeat(50), 10)).toBe("xxxxxxxxx…");
  });

  it("is not cut inside a character", () => {
    expect(cleanLine("🜲".repeat(200), 4)).toBe("🜲🜲🜲…");
  });
});

it("several lines stay lines", () => {
  expect(cleanLines("# one\r\n#\ttwo\r\n\u001b[31mred\u009b\n")).toBe("# one\n#    two\n[31mred");
});

describe("a link", () => {
  it.each(["https://example.net/a?b#c", "http://[fd7a::1]:8080/"])(
    "%s may be opened after a question",
    (text) => {
      expect(safeLink(text)?.href).toBe(text);
    },
  );

  it.each([
    "javascript:alert(1)",
    "data:text/html,x",
    "file:///etc/passwd",
    "vbscript:x",
    "blob:https://example.net/1",
    "//example.net/",
    "/machines",
    "",
    `https://example.net/${"x".repeat(3_000)}`,
    "https://exa\u202emple.net/",
    "https://example.net/\u0000",
  ])("%j is none", (text) => {
    expect(safeLink(text)).toBeUndefined();
    expect(safeLink(text)).toBeUndefined(); // nor when asked again
  });

  it("shows the host that is reached, whatever stands before it", () => {
    expect(safeLink("https://bank.example@evil.test/x")).toEqual({
      href: "https://evil.test/x",
      host: "evil.test",
      disguised: true,
    });
    expect(safeLink("https://аpple.com/")?.host).toBe("xn--pple-43d.com");
  });

  it("is found in a line, without the punctuation around it", () => {
    expect(linksIn("see https://a.test/x, (http://b.test/y(1)) and [https://c.test/z].")).toEqual([
      { at: 4, text: "https://a.test/x" },
      { at: 23, text: "http://b.test/y(1)" },
      { at: 48, text: "https://c.test/z" },
    ]);
    expect(linksIn("javascript:alert(1) ftp://a.test/")).toEqual([]);
  });
});

describe("the clipboard", () => {
  const base64 = (text: string) => Buffer.from(text, "utf8").toString("base64");

  it("may be offered a text", () => {
    expect(offeredToClipboard(`c;${base64("grüße")}`)).toBe("grüße");
    expect(offeredToClipboard(`;${base64("x")}`)).toBe("x");
  });

  it.each(["c;?", "c;", "?;?", "c", "x;YQ==", "c;Y*Q=", `c;${base64("a").replace("=", "é")}`])(
    "%j is refused",
    (data) => {
      expect(offeredToClipboard(data)).toBeUndefined();
    },
  );

  it("takes no bytes that are no text, and not too many", () => {
    expect(offeredToClipboard(`c;${Buffer.from([0xff, 0xfe]).toString("base64")}`)).toBeUndefined();
    expect(offeredToClipboard(`c;${base64("x".repeat(MOST_CLIPBOARD + 100))}`)).toBeUndefined();
    expect(offeredToClipboard(`c;${base64("x".repeat(MOST_CLIPBOARD))}`)).toHaveLength(MOST_CLIPBOARD);
  });
});

describe("a check's page", () => {
  const here = "https://door.example.net/console/";
  it("is opened at our own origin", () => {
    expect(checkPath("https://door.example.net/check/abcDEF_12-34", here)).toBe("/check/abcDEF_12-34");
    expect(checkPath("https://evil.test/check/abcDEF_12-34", here)).toBe("/check/abcDEF_12-34");
  });
  it.each([
    "https://evil.test/",
    "https://door.example.net/check/a",
    "https://door.example.net/check/../machines12",
    "%%",
    "javascript:/check/abcdefgh/x",
  ])("%s is none", (address) => expect(checkPath(address, here)).toBeUndefined());
});
