// What the links in mails about accounts open: `#/auth/confirm-…/{token}`.
//
// Keeps true: the token leaves the address bar at once and goes to this page's own server alone; nothing happens before
// somebody presses the button, so a mail scanner that opens the link confirms nothing. Does not do: logging in.

const LINKS = {
  "confirm-verification": { form: "verification", told: "Your address is confirmed." },
  "confirm-password-reset": { form: "reset", told: "Your new password is set. Log in with it." },
  "confirm-email-change": { form: "change", told: "Your account has the new address. Log in with it." },
};

// `/_/` of the node, or `/t/{tenant}/_/`: the API lies beside it.
const api = new URL("../api/", location.href);

function show(id) {
  for (const part of document.querySelector("main").children) {
    part.hidden = part.id !== id;
  }
  document.querySelector(`#${id} input`)?.focus();
}

// Completes a registration, at the address that confirms one.
const REGISTRATION = { form: "registration", told: "Your account is made. Log in with your password." };

// What the token says of itself, which the server checks; here it only says where to send it and what to ask for.
function claimsOf(token) {
  try {
    const body = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    return JSON.parse(atob(body)) ?? {};
  } catch {
    return {};
  }
}

function read(hash) {
  const [, action, token] = hash.match(/^#\/auth\/([a-z-]+)\/([\w.-]+)$/) ?? [];
  const link = Object.hasOwn(LINKS, action ?? "") ? LINKS[action] : undefined;
  const claims = link ? claimsOf(token) : {};
  const asked = claims.type === "registration" ? REGISTRATION : link;
  return claims.collectionId ? { ...asked, action, token, collection: claims.collectionId } : undefined;
}

async function send(link, values) {
  const path = `collections/${encodeURIComponent(link.collection)}/${link.action}`;
  const answer = await fetch(new URL(path, api), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...values, token: link.token }),
    credentials: "omit",
    referrerPolicy: "no-referrer",
  });
  if (answer.ok) {
    return undefined;
  }
  const problem = await answer.json().catch(() => ({}));
  const told = Object.values(problem.data ?? {}).map((field) => field.message);
  return told.join(" ") || problem.message || "That did not work. Try again in a moment.";
}

function serve(link) {
  const form = document.getElementById(link.form);
  const [button, refusal] = [form.querySelector("button"), form.querySelector(".refusal")];
  form.querySelector(".reveal")?.addEventListener("change", (event) => {
    for (const field of form.querySelectorAll("input:not(.reveal)")) {
      field.type = event.target.checked ? "text" : "password";
    }
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    refusal.hidden = true;
    const values = Object.fromEntries(new FormData(form));
    const refused = await send(link, values).catch(() => "The server did not answer. Try again in a moment.");
    button.disabled = false;
    if (refused === undefined) {
      form.reset();
      document.getElementById("told").textContent = link.told;
      show("done");
    } else {
      refusal.textContent = refused;
      refusal.hidden = false;
    }
  });
  show(link.form);
}

const link = read(location.hash);
history.replaceState(null, "", location.pathname);
if (link) {
  serve(link);
} else {
  show("nothing");
}
