/** The entry of the terminal's page. */

import "../styles/index.css";
import "./states.css";
import "./over.css";
import "./terminal.css";
import { render } from "preact";
import { bootstrap } from "../ui/bootstrap.ts";
import { App, type Start } from "./app.ts";
import { Frame } from "./frame.tsx";

const app = new App(bootstrap<Start>());
// The node's Worker has been asked for, and browsers need this thread to begin it: what is drawn can wait a moment.
setTimeout(() => render(<Frame app={app} />, document.getElementById("app")!));
