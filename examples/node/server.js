// A product with one billable route.

import express from "express";
import { recordUsage } from "./usage.js";

const app = express();

// Stands for your own authentication.
app.use((req, res, next) => {
  req.user = { id: req.get("x-user-id") ?? "user_123" };
  next();
});

app.post("/api/chat", async (req, res) => {
  await recordUsage(req.user.id);
  await recordUsage(req.user.id, {
    metric: "AI_TOKEN",
    amount: 1500,
    metadata: { model: "gpt-4" },
  });
  res.send({ message: "Response generated" });
});

// Here nothing is given away that was not recorded. (The Express example decides otherwise.)
app.use((error, req, res, next) => {
  console.error(error);
  res.status(503).send({ message: "Please try again" });
});

const port = Number(process.env.PORT ?? 3000);
app.listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${port}`));
