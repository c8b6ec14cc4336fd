import { Chat } from "./chat.jsx";

// This runs on the server and could hold a key of its own: a server component needs no keyproxy.
// The chat runs in the browser, which must not have one.
export default function Page() {
  return <Chat model={process.env.LLM_MODEL ?? "openai/gpt-4o-mini"} />;
}
