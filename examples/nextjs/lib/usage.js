import crypto from "crypto";

const ATTEMPTS_MAX = 3;
const ATTEMPT_MS_MAX = 5_000;

/** Records one event; throws when UsageFlow has not stored it after ATTEMPTS_MAX attempts. */
export async function recordUsage(event) {
  const request = {
    method: "POST",
    headers: {
      "Content-Type": "application/json",
      "x-usageflow-api-key": process.env.USAGEFLOW_API_KEY,
      "Idempotency-Key": crypto.randomUUID(), // the same in every attempt: billed once
    },
    body: JSON.stringify(event),
    cache: "no-store",
  };
  let problem;
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt += 1) {
    try {
      const signal = AbortSignal.timeout(ATTEMPT_MS_MAX);
      const response = await fetch(`${process.env.USAGEFLOW_URL}/api/track`, { ...request, signal });
      if (response.ok) return;
      problem = `${response.status} ${await response.text()}`;
      if (response.status < 500 && response.status !== 429) break;
    } catch (error) {
      problem = error;
    }
  }
  throw new Error(`Usage was not recorded: ${problem}`);
}
