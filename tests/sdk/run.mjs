// Reads one {sdk, case, base} a line and answers each with what the case returned, as one line of
// JSON. One process for all of them, because importing the SDKs takes longer than using them.

import { createInterface } from "node:readline";

console.log = console.error; // an SDK's own words are no answers

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  let answer;
  try {
    const { cases } = await import(`./${asked.sdk}.mjs`);
    answer = { result: await cases[asked.case](asked.base) };
  } catch (error) {
    answer = { crash: [error.stack, error.cause, error.body].filter(Boolean).join("\n") };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0); // connections that an SDK keeps open are no reason to wait
