// A real SMTP server (npm smtp-server) on loopback that keeps what it is sent.
import { SMTPServer } from "smtp-server";
import { freePort } from "./node.mjs";

/** Undoes quoted-printable and base64 of one part, and header words. */
export function plain(text) {
  const words = (line) =>
    line.replace(/=\?utf-8\?([bq])\?([^?]*)\?=/gi, (_, kind, data) =>
      kind.toLowerCase() === "b"
        ? Buffer.from(data, "base64").toString()
        : Buffer.from(data.replaceAll("_", " ").replace(/=([0-9A-F]{2})/gi, (_2, hex) => String.fromCharCode(parseInt(hex, 16))), "latin1").toString(),
    );
  const body = text.replace(/=\r\n/g, "").replace(/((?:=[0-9A-F]{2})+)/g, (run) => Buffer.from(run.replaceAll("=", ""), "hex").toString());
  return words(body);
}

/** Starts a sink; `mails` grows, `refuse` may hold a reply code for recipients. */
export async function startSink({ port, tls, auth } = {}) {
  const sink = { port: port ?? (await freePort()), mails: [], refuse: undefined, sessions: [] };
  const server = new SMTPServer({
    disabledCommands: [...(tls ? [] : ["STARTTLS"]), ...(auth ? [] : ["AUTH"])],
    authOptional: !auth,
    allowInsecureAuth: false,
    ...(tls ? { key: tls.key, cert: tls.cert } : {}),
    logger: false,
    // Kept connections are not waited for when the server goes down.
    closeTimeout: 50,
    onAuth(login, _, done) {
      sink.sessions.push(login.method);
      if (auth && login.username === auth.user && login.password === auth.password) return done(null, { user: login.username });
      done(Object.assign(new Error("unknown login"), { responseCode: 535 }));
    },
    onRcptTo(address, session, done) {
      if (sink.refuse) return done(Object.assign(new Error("no"), { responseCode: sink.refuse }));
      done();
    },
    onData(stream, session, done) {
      let text = "";
      stream.on("data", (chunk) => (text += chunk));
      stream.on("end", () => {
        const to = session.envelope.rcptTo.map((one) => one.address);
        sink.mails.push({ to, from: session.envelope.mailFrom.address, text, plain: plain(text), secure: session.secure });
        done();
      });
    },
  });
  server.on("error", () => {});
  await new Promise((ready, failed) => {
    server.once("error", failed);
    server.listen(sink.port, "127.0.0.1", ready);
  });
  sink.to = (address) => sink.mails.filter((mail) => mail.to.includes(address));
  sink.stop = () => new Promise((closed) => server.close(closed));
  return sink;
}
