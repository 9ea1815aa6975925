import "../styles/index.css";
import { render } from "preact";
import { bootstrap } from "../ui/bootstrap.ts";
import { App, Hall, type Start } from "./app.tsx";

const start = bootstrap<Start>();
const app = document.getElementById("app")!;
app.textContent = "";
render(<App start={start} hall={new Hall(start)} />, app);
