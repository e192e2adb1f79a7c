// A real OpenID provider (npm oidc-provider) on loopback, and somebody who signs in at it without a browser.
import { createServer } from "node:http";
import { Provider } from "oidc-provider";
import { freePort } from "./node.mjs";

export const client = { id: "tenantry", secret: "s3cret +/:of the client" };
export const callback = "https://app.example.com/signed-in";

/** Starts the provider; `people` maps a login to its claims and may change while it runs. */
export async function startProvider() {
  const port = await freePort();
  const issuer = `http://127.0.0.1:${port}`;
  const people = new Map();
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: client.id,
        client_secret: client.secret,
        redirect_uris: [callback],
        response_types: ["code"],
        grant_types: ["authorization_code"],
        token_endpoint_auth_method: "client_secret_basic",
      },
    ],
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name", "preferred_username", "picture"] },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...people.get(id) }) }),
    pkce: { required: () => true, methods: ["S256"] },
    features: { devInteractions: { enabled: true } },
    cookies: { keys: ["test"] },
    ttl: { AccessToken: 300, AuthorizationCode: 60, IdToken: 300, Grant: 600, Interaction: 600, Session: 600 },
  });
  const server = createServer(provider.callback());
  await new Promise((ready) => server.listen(port, "127.0.0.1", ready));
  return { issuer, people, stop: () => new Promise((closed) => (server.closeAllConnections(), server.close(closed))) };
}

/** Signs `login` in at `authURL` (with the return address appended); returns what the provider hands back. */
export async function signIn(authURL, login) {
  const jar = new Map();
  const step = async (url, form) => {
    const answer = await fetch(url, {
      method: form ? "POST" : "GET",
      redirect: "manual",
      headers: { cookie: [...jar].map(([name, value]) => `${name}=${value}`).join("; ") },
      ...(form ? { body: new URLSearchParams(form) } : {}),
    });
    for (const cookie of answer.headers.getSetCookie()) {
      const [pair] = cookie.split(";");
      jar.set(pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1));
    }
    return answer;
  };
  let url = authURL;
  for (let hop = 0; hop < 12; hop += 1) {
    let answer = await step(url);
    if (answer.status === 200) {
      const page = await answer.text();
      const prompt = /name="prompt" value="(\w+)"/.exec(page)?.[1];
      const action = /action="([^"]+)"/.exec(page)?.[1];
      if (!prompt || !action) throw new Error(`no form:\n${page}`);
      answer = await step(new URL(action, url), { prompt, login, password: "any" });
    }
    const location = answer.headers.get("location");
    if (!location) throw new Error(`the provider answered ${answer.status}: ${await answer.text()}`);
    url = new URL(location, url).href;
    if (url.startsWith(callback)) return Object.fromEntries(new URL(url).searchParams);
  }
  throw new Error("the provider sends people in circles");
}
