package scenarios

import "slices"

// DefaultPrompts are what is asked where a workload names no prompts: plain
// English of varied length, which a very small chat model can go on from. What
// they say is not judged, only how the answers come.
func DefaultPrompts() []string { return slices.Clone(defaultPrompts) }

var defaultPrompts = []string{
	"Hello! How are you today?",
	"Good morning.",
	"Tell me a short story.",
	"What is your name, and what do you like to do?",
	"Tell me a story about a little dog who is afraid of the rain.",
	"Why is the sky blue?",
	"Once upon a time there was a girl named Lily who found a red ball in the park.",
	"How do I make a cup of tea?",
	"Say something kind to a friend who is sad.",
	"Explain why we sleep at night in words that a child can understand.",
	"What do birds eat?",
	"Tell me a story about two brothers, Tom and Ben, who build a boat out of wood. They want to sail it on the lake, but the wind is too strong that day.",
	"How can I learn to ride a bicycle?",
	"What is the sun?",
	"Write three sentences about a cat that sits in a window.",
	"Why do leaves fall from the trees in autumn?",
	"My friend is coming to visit this afternoon. What games could we play in the garden if the weather is good, and what could we do if it starts to rain?",
	"Tell me about the sea.",
	"How do you bake bread?",
	"Describe a big old house at the end of a quiet street.",
	"Thank you for your help!",
	"What should I do when I feel angry?",
	"Write a story about a small bird that cannot fly yet. Every day it looks at the other birds in the sky. One day its mother says that it is time to try.",
	"Is it good to share your toys? Why?",
	"How does a plant grow from a seed?",
	"What is the difference between a lake and a river?",
	"Tell me a story with a happy end about a boy who lost his hat at the market.",
	"What can you see at night when you look up?",
	"How do I brush my teeth well?",
	"A fox and a rabbit meet in the forest. The fox is hungry, and the rabbit is clever. What happens next?",
	"Give me an idea for a birthday present for my grandmother.",
	"Why should we wash our hands before we eat?",
	"Please write a short letter to a teacher to say thank you for a good year at school, and mention the trip to the zoo.",
	"What is your favourite season?",
	"Explain how a bridge stays up.",
	"Who lives in the forest?",
	"Tell me what a farmer does from the early morning until the evening.",
	"How can I stop being afraid of the dark?",
	"Anna has a garden with tomatoes, beans and flowers. She waters it every evening, but this week somebody eats her tomatoes. She decides to stay up late to find out who it is. Tell me the rest of the story.",
	"Goodbye, and sleep well.",
}
