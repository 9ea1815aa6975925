/**
 * The bundle of the console's pages: `vite build` writes it, with its manifest, into the Python package that serves it.
 *
 * The root is the repository's, so that the manifest names an entry as everybody does: `web/src/terminal/page.tsx`. Addresses in
 * the bundle are relative to the file that names them, so that the pages may stand under a path.
 */
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";
import { compress } from "./vite.compress.ts";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  root: here(".."),
  base: "./",
  cacheDir: here("node_modules/.vite"),
  envDir: false,
  publicDir: false,
  logLevel: "warn",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  worker: { format: "es" },
  build: {
    outDir: here("../src/doorward/console/static"),
    emptyOutDir: true,
    assetsDir: "assets",
    assetsInlineLimit: 0, // the content policy lets nothing be part of a style or script that it does not name
    manifest: true,
    modulePreload: { polyfill: false },
    target: ["chrome123", "firefox120", "safari17.5"], // who has light-dark(), WebCrypto's X25519 aside
    rolldownOptions: {
      checks: { pluginTimings: false }, // compressing is slow, and once
      input: { console: here("src/console/page.tsx"), terminal: here("src/terminal/page.tsx") },
    },
  },
  plugins: [compress()],
});
