"""/v1/responses: chats in the words of OpenAI's Responses API, kept to be gone on with."""
