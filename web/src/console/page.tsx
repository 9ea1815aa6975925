import "../styles/index.css";
import { render } from "preact";
import { bootstrap, type Common } from "../ui/bootstrap.ts";

function Page() {
  const { tailnet } = bootstrap<Common>();
  return (
    <main>
      <h1>Machines</h1>
      <p>{tailnet}</p>
    </main>
  );
}

render(<Page />, document.getElementById("app")!);
