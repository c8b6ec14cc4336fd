// Run in a browser, not run on a phone: see README.md.
import { fetch } from "expo/fetch";
import OpenAI from "openai";
import { useRef, useState } from "react";
import { Button, SafeAreaView, ScrollView, Text, TextInput } from "react-native";

const llm = new OpenAI({
  baseURL: process.env.EXPO_PUBLIC_LLM_URL,
  apiKey: "none",
  dangerouslyAllowBrowser: true,
  fetch, // it streams, which React Native's own does not
});

export default function App() {
  const [question, setQuestion] = useState("");
  const [answer, setAnswer] = useState("");
  const stream = useRef(null);

  async function ask() {
    let text = "";
    setAnswer("");
    try {
      stream.current = await llm.chat.completions.create({
        model: "openai/gpt-4o-mini",
        messages: [{ role: "user", content: question }],
        stream: true,
      });
      for await (const chunk of stream.current) {
        text += chunk.choices[0]?.delta?.content ?? "";
        setAnswer(text);
      }
    } catch (error) {
      setAnswer(`${text}\n${error.message}`);
    }
  }

  return (
    <SafeAreaView style={{ flex: 1, margin: 16, gap: 8 }}>
      <TextInput value={question} onChangeText={setQuestion} placeholder="Question" />
      <Button title="Send" onPress={ask} />
      <Button title="Stop" onPress={() => stream.current?.controller.abort()} />
      <ScrollView>
        <Text>{answer}</Text>
      </ScrollView>
    </SafeAreaView>
  );
}
