// Never run: that this compiles shows that the helper's types are what the SDKs take.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { createOpenRouter } from "@openrouter/ai-sdk-provider";
import { HTTPClient } from "@openrouter/sdk";
import Anthropic from "@anthropic-ai/sdk";
import { streamText } from "ai";
import OpenAI from "openai";

import {
  anonymous, clientToken, fetchAs, fetchFor, session, SessionRefused, userToken,
  type CredentialSource,
} from "../../examples/web/client.js";

const base = "https://api.example.com/api/v1";
const sources: CredentialSource[] = [
  anonymous(),
  clientToken("kpt_…"),
  userToken(async ({ isStale }) => (isStale ? null : "jwt")),
  session(base),
  session(base, { solveCaptcha: async () => "solved" }),
];
const fetch = fetchFor(sources[3]!);

new OpenAI({ baseURL: base, apiKey: "none", dangerouslyAllowBrowser: true, fetch });
new Anthropic({ baseURL: base, apiKey: "none", dangerouslyAllowBrowser: true, fetch });
new HTTPClient({ fetcher: fetch });
createOpenRouter({ baseURL: base, apiKey: "none", fetch });
const llm = createOpenAICompatible({ name: "keyproxy", baseURL: base, fetch });
streamText({ model: llm("openai/gpt-4o-mini"), prompt: "Hello" });

fetchAs(sources[0]!, `${base}/models`, { signal: AbortSignal.timeout(1) }).catch((error: unknown) => {
  if (error instanceof SessionRefused) error.response.status.toFixed();
});

// @ts-expect-error a source is no text
fetchFor("kpt_…");
// @ts-expect-error what gives no promise is no source
fetchFor(() => "Bearer kpt_…");
