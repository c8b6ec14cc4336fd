import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { convertToModelMessages, streamText } from "ai";

// What a server route would do for useChat, done in the page: keyproxy holds the key.
const provider = createOpenAICompatible({
  name: "keyproxy",
  baseURL: import.meta.env.VITE_LLM_URL ?? "http://localhost:8484/api/v1",
  includeUsage: true,
});

/** A transport of useChat that calls `model` from the page. */
export function direct(model) {
  return {
    async sendMessages({ messages, abortSignal }) {
      const result = streamText({
        model: provider(model),
        messages: await convertToModelMessages(messages),
        abortSignal,
      });
      // Without this the AI SDK says only that an error occurred.
      return result.toUIMessageStream({ onError: (error) => error.message });
    },
    async reconnectToStream() {
      return null; // a page that was reloaded has left its stream
    },
  };
}
