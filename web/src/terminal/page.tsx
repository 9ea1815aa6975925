/** The entry of the terminal's page. */

import "../styles/index.css";
import "./states.css";
import "./over.css";
import "./terminal.css";
import { render } from "preact";
import { bootstrap } from "../ui/bootstrap.ts";
import { App, type Start } from "./app.ts";
import { Frame } from "./frame.tsx";

render(<Frame app={new App(bootstrap<Start>())} />, document.getElementById("app")!);
