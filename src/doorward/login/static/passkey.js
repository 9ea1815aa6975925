// Asks the browser for a passkey and puts the answer into the form around the button. The page works by the form alone;
// this is the one thing that a browser does for scripts only.
"use strict";

const bytes = (text) =>
  Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (one) => one.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
const listed = (list) => list.map((one) => ({ ...one, id: bytes(one.id) }));

async function sign(options) {
  const got = await navigator.credentials.get({
    publicKey: { ...options, challenge: bytes(options.challenge), allowCredentials: listed(options.allowCredentials) },
  });
  const { authenticatorData, clientDataJSON, signature, userHandle } = got.response;
  return {
    ...named(got),
    response: {
      authenticatorData: text(authenticatorData),
      clientDataJSON: text(clientDataJSON),
      signature: text(signature),
      userHandle: userHandle ? text(userHandle) : null,
    },
  };
}

async function make(options) {
  const made = await navigator.credentials.create({
    publicKey: {
      ...options,
      challenge: bytes(options.challenge),
      user: { ...options.user, id: bytes(options.user.id) },
      excludeCredentials: listed(options.excludeCredentials),
    },
  });
  return {
    ...named(made),
    response: {
      attestationObject: text(made.response.attestationObject),
      clientDataJSON: text(made.response.clientDataJSON),
      transports: made.response.getTransports ? made.response.getTransports() : [],
    },
  };
}

const named = (credential) => ({ id: credential.id, rawId: text(credential.rawId), type: credential.type, clientExtensionResults: {} });

const REASONS = {
  NotAllowedError: "No passkey was given. Try again when you are ready.",
  InvalidStateError: "This device has a passkey for this page already.",
  SecurityError: "The browser gives no passkey to this address.",
  AbortError: "It was stopped. Try again when you are ready.",
};

for (const form of document.querySelectorAll("form[data-passkey]")) {
  const button = form.querySelector("button");
  const says = form.querySelector("[data-says]");
  const options = JSON.parse(form.dataset.options);
  const ask = async () => {
    button.disabled = true;
    says.textContent = "";
    try {
      const answer = await (form.dataset.passkey === "get" ? sign : make)(options);
      form.elements.answer.value = JSON.stringify(answer);
      form.submit();
    } catch (error) {
      says.textContent = REASONS[error.name] ?? `The browser gave no passkey (${error.name}).`;
      button.disabled = false;
      button.focus();
    }
  };
  if (!window.isSecureContext || !navigator.credentials || !window.PublicKeyCredential) {
    says.textContent = "This browser has no passkeys here: they need https, or localhost.";
    continue;
  }
  button.disabled = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  if ("atOnce" in form.dataset) {
    ask();
  }
}
