// An issuer that signs whatever a test wants: wrong claims, wrong keys, no signature at all.
import { createHmac } from "node:crypto";
import { createServer } from "node:http";
import { SignJWT, exportJWK, generateKeyPair } from "jose";
import { freePort } from "./node.mjs";

const base64 = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

export async function startLiar() {
  const port = await freePort();
  const issuer = `http://127.0.0.1:${port}`;
  const liar = { issuer, keys: [], published: [], asked: [], claims: {}, tamper: (token) => token, fetched: 0, discovery: {} };
  liar.addKey = async (kid, algorithm) => {
    const pair = await generateKeyPair(algorithm, { extractable: true });
    const jwk = { ...(await exportJWK(pair.publicKey)), kid, alg: algorithm, use: "sig" };
    liar.keys.push({ kid, algorithm, pair, jwk });
    return liar.keys.at(-1);
  };
  /** Signs with the newest key. */
  liar.sign = async (claims) => {
    const key = liar.keys.at(-1);
    return new SignJWT(claims).setProtectedHeader({ alg: key.algorithm, kid: key.kid }).sign(key.pair.privateKey);
  };
  liar.unsigned = (claims) => `${base64({ alg: "none" })}.${base64(claims)}.`;
  liar.hmac = (claims, secret, kid) => {
    const signed = `${base64({ alg: "HS256", kid })}.${base64(claims)}`;
    return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
  };
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, issuer);
    const answer = (status, body) => {
      response.writeHead(status, { "content-type": "application/json" });
      response.end(JSON.stringify(body));
    };
    if (url.pathname === "/.well-known/openid-configuration") {
      return answer(200, {
        issuer,
        authorization_endpoint: `${issuer}/auth`,
        token_endpoint: `${issuer}/token`,
        userinfo_endpoint: `${issuer}/me`,
        jwks_uri: `${issuer}/jwks`,
        token_endpoint_auth_methods_supported: ["client_secret_post"],
        ...liar.discovery,
      });
    }
    if (url.pathname === "/jwks") {
      liar.fetched += 1;
      return answer(200, { keys: liar.published });
    }
    if (url.pathname === "/token") {
      let body = "";
      for await (const chunk of request) body += chunk;
      liar.asked.push(Object.fromEntries(new URLSearchParams(body)));
      const now = Math.floor(Date.now() / 1000);
      const claims = { iss: issuer, aud: "me", sub: "u1", iat: now, exp: now + 300, email: "u1@liar.test", email_verified: true, ...liar.claims };
      for (const [name, value] of Object.entries(claims)) if (value === undefined) delete claims[name];
      return answer(200, { access_token: "at", token_type: "Bearer", id_token: await liar.token(claims) });
    }
    if (url.pathname === "/me") return answer(200, { sub: "somebody-else", email: "x@y.test", email_verified: true });
    return answer(404, {});
  });
  liar.token = liar.sign;
  await new Promise((ready) => server.listen(port, "127.0.0.1", ready));
  liar.stop = () => new Promise((closed) => (server.closeAllConnections(), server.close(closed)));
  return liar;
}
