/** Whether this machine has something made for drawing, so that WebGL is worth its code. */

let graphics: boolean | undefined;

/** Whether WebGL is drawn by something made for it. Where the processor has to do it, elements cost a third, and so does a page without it. */
export function hasGraphics(): boolean {
  if (graphics === undefined) {
    const context = document
      .createElement("canvas")
      .getContext("webgl2", { failIfMajorPerformanceCaveat: true });
    graphics = context !== null && !drawsInSoftware(nameOf(context));
    context?.getExtension("WEBGL_lose_context")?.loseContext();
  }
  return graphics;
}

/** Whether a renderer of this name is a program for the processor. Browsers give a context for one even where they are asked not to. */
export function drawsInSoftware(name: string): boolean {
  return /swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
}

/** What draws, as the browser calls it; some tell it only who asks for it by an extension. */
function nameOf(context: WebGL2RenderingContext): string {
  const name = String(context.getParameter(context.RENDERER));
  if (name !== "WebKit WebGL") return name;
  const more = context.getExtension("WEBGL_debug_renderer_info");
  return more === null ? name : String(context.getParameter(more.UNMASKED_RENDERER_WEBGL));
}
