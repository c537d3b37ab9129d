import { recordUsage } from "../../../lib/usage.js";

export async function POST(req) {
  // Stands for your own authentication.
  const customerId = req.headers.get("x-user-id") ?? "user_123";
  try {
    await recordUsage({ metric: "API_CALL", amount: 1, customerId });
  } catch (error) {
    console.error(error);
    return Response.json({ success: false }, { status: 503 });
  }
  return Response.json({ success: true });
}
