// Usage recorded by a middleware, for every route that it is attached to.

import crypto from "crypto";
import express from "express";

const ATTEMPTS_MAX = 3;
const ATTEMPT_MS_MAX = 2_000;

async function usageMiddleware(req, res, next) {
  const event = { metric: "API_CALL", amount: 1, customerId: req.user.id };
  const request = {
    method: "POST",
    headers: {
      "Content-Type": "application/json",
      "x-usageflow-api-key": process.env.USAGEFLOW_API_KEY,
      // One key for all attempts: whatever gets lost on the way, the call is billed once.
      "Idempotency-Key": crypto.randomUUID(),
    },
    body: JSON.stringify({ ...event, metadata: { endpoint: req.path } }),
  };
  if (!(await recorded(request))) {
    // Here the customer is served all the same. (The Node.js example decides otherwise.)
    console.error("Usage was not recorded:", request.body, request.headers["Idempotency-Key"]);
  }
  next();
}

/** Whether UsageFlow has stored the event, after at most ATTEMPTS_MAX attempts. */
async function recorded(request) {
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt += 1) {
    try {
      const signal = AbortSignal.timeout(ATTEMPT_MS_MAX);
      const response = await fetch(`${process.env.USAGEFLOW_URL}/api/track`, { ...request, signal });
      if (response.ok) return true;
      console.error(`UsageFlow answered ${response.status}: ${await response.text()}`);
      if (response.status < 500 && response.status !== 429) return false;
    } catch (error) {
      console.error(error);
    }
  }
  return false;
}

const app = express();

// Stands for your own authentication.
app.use((req, res, next) => {
  req.user = { id: req.get("x-user-id") ?? "user_123" };
  next();
});

app.get("/health", (req, res) => res.send("ok")); // not billed

app.use("/api", usageMiddleware);
app.get("/api/report", (req, res) => res.send({ rows: [] }));
app.post("/api/chat", (req, res) => res.send({ message: "Response generated" }));

const port = Number(process.env.PORT ?? 3000);
app.listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${port}`));
