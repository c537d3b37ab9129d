// Verifies webhooks, one JSON object a line: {"secret", "headers", "body", "aheadSeconds"} in, with
// the clock so far ahead, {"verified"} out.
// A secret is "whsec_..." (standardwebhooks) or a public key "whpk_..." (node:crypto: that package
// knows no ed25519).
import { createPublicKey, verify } from "node:crypto";
import { createInterface } from "node:readline";
import { Webhook } from "standardwebhooks";

const realNow = Date.now;
const SPKI = Buffer.from("302a300506032b6570032100", "hex");

function verifyEd25519(publicKey, headers, body) {
  const der = Buffer.concat([SPKI, Buffer.from(publicKey.slice(5), "base64")]);
  const key = createPublicKey({ key: der, format: "der", type: "spki" });
  const content = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`;
  const good = headers["webhook-signature"].split(" ").some((element) => {
    const [version, signature] = element.split(",");
    return (
      version === "v1a" &&
      verify(null, Buffer.from(content), key, Buffer.from(signature, "base64"))
    );
  });
  if (!good) throw new Error("No matching signature found");
}

for await (const line of createInterface({ input: process.stdin })) {
  const { secret, headers, body, aheadSeconds } = JSON.parse(line);
  Date.now = () => realNow() + 1000 * aheadSeconds;
  let verified = true;
  try {
    if (secret.startsWith("whpk_")) verifyEd25519(secret, headers, body);
    else new Webhook(secret).verify(body, headers);
  } catch {
    verified = false;
  }
  console.log(JSON.stringify({ verified }));
}
