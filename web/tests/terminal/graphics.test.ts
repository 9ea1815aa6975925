import { expect, test } from "vitest";
import { drawsInSoftware } from "../../src/terminal/graphics.ts";

test.each([
  "ANGLE (Google, Vulkan 1.3.0 (SwiftShader Device (Subzero) (0x0000C0DE)), SwiftShader driver)",
  "llvmpipe (LLVM 15.0.6, 256 bits)",
  "ANGLE (Mesa, llvmpipe (LLVM 15.0.6, 256 bits), OpenGL 4.5)",
  "ANGLE (Microsoft, Microsoft Basic Render Driver Direct3D11 vs_5_0 ps_5_0, D3D11)",
  "Apple Software Renderer",
])("%s is a program", (name) => expect(drawsInSoftware(name)).toBe(true));

test.each([
  "WebKit WebGL",
  "Apple GPU",
  "Mali-G78",
  "ANGLE (Intel, Mesa Intel(R) UHD Graphics 620 (KBL GT2), OpenGL 4.6)",
  "ANGLE (NVIDIA, NVIDIA GeForce RTX 3060 Direct3D11 vs_5_0 ps_5_0, D3D11)",
  "Radeon R9 200 Series, or similar",
])("%s is made for it", (name) => expect(drawsInSoftware(name)).toBe(false));
