// For a page: `run("openai", "chat", base)` resolves to what the case returned.

import { cases as anthropic } from "./anthropic.mjs";
import { cases as client } from "./client.mjs";
import { cases as openai } from "./openai.mjs";

const sdks = { anthropic, client, openai };

globalThis.run = (sdk, name, base) => sdks[sdk][name](base);
