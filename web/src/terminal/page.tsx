import "../styles/index.css";
import { render } from "preact";
import { bootstrap, type Common } from "../ui/bootstrap.ts";

interface Asked extends Common {
  machine: string;
  account: string | null;
}

function Page() {
  const { machine, account } = bootstrap<Asked>();
  return (
    <main>
      <h1>
        {machine} {account && <code>{account}</code>}
      </h1>
    </main>
  );
}

render(<Page />, document.getElementById("app")!);
