/** The colours of a terminal, light and dark: every text colour reaches 4.5 on its ground. */

import type { ITheme } from "@xterm/xterm";

const LIGHT: ITheme = {
  background: "#FDFDFB",
  foreground: "#1E2522",
  cursor: "#1E2522",
  cursorAccent: "#FDFDFB",
  selectionBackground: "#C9E4D8",
  selectionInactiveBackground: "#E0E9E4",
  black: "#1E2522",
  red: "#AE2A20",
  green: "#0A6B43",
  yellow: "#875100",
  blue: "#1D4F8C",
  magenta: "#6B3A8F",
  cyan: "#0B6570",
  white: "#66726C",
  brightBlack: "#66726C",
  brightRed: "#C03428",
  brightGreen: "#08764A",
  brightYellow: "#925A06",
  brightBlue: "#275FA3",
  brightMagenta: "#7D49A4",
  brightCyan: "#0C717D",
  brightWhite: "#414C47",
};

const DARK: ITheme = {
  background: "#0C100F",
  foreground: "#D5DDD8",
  cursor: "#D5DDD8",
  cursorAccent: "#0C100F",
  selectionBackground: "#24463A",
  selectionInactiveBackground: "#1C2925",
  black: "#37423D",
  red: "#FF8F83",
  green: "#62CF9B",
  yellow: "#EDB955",
  blue: "#84B6EE",
  magenta: "#CBA5EE",
  cyan: "#6CCBD3",
  white: "#D5DDD8",
  brightBlack: "#7D8A83",
  brightRed: "#FFAAA1",
  brightGreen: "#86E0B5",
  brightYellow: "#F5CD7E",
  brightBlue: "#A6CBF5",
  brightMagenta: "#DBC0F5",
  brightCyan: "#92DDE3",
  brightWhite: "#F4F8F6",
};

/** What finds of a search look like: they need contrast to the text in both. */
export const FINDS = {
  light: {
    matchBackground: "#FDE7BD",
    activeMatchBackground: "#F2B04A",
    matchOverviewRuler: "#E8991B",
    activeMatchColorOverviewRuler: "#875100",
  },
  dark: {
    matchBackground: "#4A3812",
    activeMatchBackground: "#8A6415",
    matchOverviewRuler: "#F0A92E",
    activeMatchColorOverviewRuler: "#F3BB55",
  },
} as const;

export function theme(dark: boolean): ITheme {
  return dark ? DARK : LIGHT;
}

/** Contrast of two colours, "#RRGGBB" each (WCAG 2.2, relative luminance). */
export function contrast(one: string, other: string): number {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high! + 0.05) / (low! + 0.05);
}

function luminance(colour: string): number {
  const [red, green, blue] = [1, 3, 5].map((at) => {
    const part = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!;
}
