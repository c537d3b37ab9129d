// Records usage with UsageFlow. Copy this file into your back end.

import crypto from "crypto";
import { setTimeout as pause } from "timers/promises";
import fetch from "node-fetch";

const TRACK_URL = `${process.env.USAGEFLOW_URL}/api/track`;
const ATTEMPTS_MAX = 4;
const ATTEMPT_MS_MAX = 5_000;
const PAUSE_MS = 100; // before the second attempt; doubles with each

/**
 * Records one billable action; resolves to the event's id once it is durably stored.
 *
 * All attempts carry the same key, so that the action is billed once even when it was stored and
 * only the answer got lost.
 */
export async function recordUsage(customerId, { metric = "API_CALL", amount = 1, metadata } = {}) {
  const key = crypto.randomUUID();
  const body = JSON.stringify({ metric, amount, customerId, metadata });
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await send(key, body);
    } catch (error) {
      if (error.refused || attempt === ATTEMPTS_MAX) {
        // What is needed to send it later, still without billing it twice.
        throw new Error(`Usage was not recorded: ${body} with key ${key}`, { cause: error });
      }
      await pause(PAUSE_MS * 2 ** (attempt - 1));
    }
  }
}

async function send(key, body) {
  const response = await fetch(TRACK_URL, {
    method: "POST",
    headers: {
      "Content-Type": "application/json",
      "x-usageflow-api-key": process.env.USAGEFLOW_API_KEY,
      "Idempotency-Key": key,
    },
    body,
    signal: AbortSignal.timeout(ATTEMPT_MS_MAX),
  });
  const answer = await response.json();
  if (response.ok) return answer.eventId;
  const error = new Error(`UsageFlow answered ${response.status}: ${answer.error}`);
  // Too many requests, or not available: worth another attempt. The rest stays refused.
  error.refused = response.status < 500 && response.status !== 429;
  throw error;
}
