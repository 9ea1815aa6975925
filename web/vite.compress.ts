import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import type { Plugin } from "vite";

const TEXT = /\.(css|js|json|svg|txt)$/; // fonts are compressed already
const LEAST = 256; // bytes; below it, compressing saves nothing

/** Puts a `.br` and a `.gz` beside every text file of the bundle, made once and as small as they get. */
export function compress(): Plugin {
  let assets = "";
  return {
    name: "compress",
    apply: "build",
    configResolved(config) {
      assets = resolve(config.root, config.build.outDir, config.build.assetsDir);
    },
    closeBundle() {
      for (const name of readdirSync(assets)) {
        if (!TEXT.test(name)) continue;
        const content = readFileSync(join(assets, name));
        if (content.length < LEAST) continue;
        const options = {
          params: {
            [constants.BROTLI_PARAM_QUALITY]: 11,
            [constants.BROTLI_PARAM_SIZE_HINT]: content.length,
          },
        };
        writeFileSync(join(assets, `${name}.br`), brotliCompressSync(content, options));
        writeFileSync(join(assets, `${name}.gz`), gzipSync(content, { level: 9 }));
      }
    },
  };
}
