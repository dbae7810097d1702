"""Prompts for the teacher: templates filled with everyday topics.

What the model will know is decided here. The lists are small and plain on
purpose: ten million weights can learn to talk about dogs, rain and bread, and
nothing is gained by asking the teacher about anything else.

Most prompts come with the opening of the answer. The teacher must go on from
it, which keeps a very small teacher on the subject, and the pupil learns to
take the subject up from the question.
"""

import random


def phrases(text):
    return [" ".join(p.split()) for p in text.split("|")]


# Girls first: name_for takes halves of it.
NAMES = """Lily Anna Mia Lucy Emma Sara Ella Rosie Nora Ruby Clara Maya Eva Lena Zoe Sofia Ivy Alice Grace Jenny Kate
Hannah Amy Molly Bella Tom Ben Max Sam Jack Leo Tim Noah Finn Oscar Peter Daniel Adam Hugo Omar David Felix Henry George
Victor Paul Oliver Simon Martin Toby""".split()

PEOPLE = phrases("""a little girl|a little boy|an old farmer|a young teacher|a kind baker|a shy boy|a brave girl|a fisherman|a
grandmother|a grandfather|a poor shoemaker|a young king|a clever princess|a tired mailman|a gardener|a painter|a
musician|a doctor|a bus driver|a sailor|a knight|a small child|a new student|a carpenter|a shepherd|a firefighter|a
lonely giant|a friendly robot|a little dragon|a kind witch|a snowman|a clumsy wizard|two brothers|two sisters|two
friends|three friends|a family|twins|a librarian|a nurse|a cook|a clockmaker""")

ANIMALS = """dog cat rabbit fox bear bird duck mouse horse cow sheep goat pig hen owl frog turtle squirrel hedgehog deer
wolf lion tiger elephant monkey penguin dolphin whale fish bee butterfly ant spider snail snake donkey goose swan crow
parrot kitten puppy lamb beaver bat seal giraffe zebra hippo panda koala kangaroo camel crab octopus shark ladybug
worm rooster pony otter mole badger eagle sparrow robin pigeon""".split()

TRAITS = """little big old young brave shy clever lazy hungry lonely curious kind proud tired happy sad small funny
greedy gentle noisy quiet grumpy silly friendly careful""".split()

PROBLEMS = phrases("""is afraid of the rain|is afraid of the dark|lost a hat at the market|cannot sleep|wants to learn to
swim|cannot fly yet|wants to find a friend|finds a small box in the garden|gets lost in the forest|wants to build a
house|finds a red ball in the park|breaks a window|forgets an important birthday|helps an old woman|learns to share|tells
a lie|finds a lost kitten|plants a magic seed|goes to the sea for the first time|wants to touch the moon|has to move to
a new town|wins a race|loses a race|bakes a cake for a friend|finds an old map|builds a boat out of wood|waits for the
first snow|wants to paint the sky|is too proud to ask for help|meets a stranger on the road|hears a strange noise at
night|finds a key|makes a big mess in the kitchen|gives away a favourite toy|is late for school|wants to sing on a
stage|saves a bird|takes care of a garden|climbs a tall tree|crosses a wide river|gets a letter from far away|misses
home|finds a door in an old tree|learns to ride a bicycle|wants a pet|fixes a broken clock|has a bad dream|makes a kite|is
jealous of a friend|says sorry|goes fishing with grandpa|sleeps in a tent|visits the zoo|has a very long
nose|never smiles|wants to be the fastest|eats too many apples|catches a cold|loses a tooth|finds a coin|is stuck in the
mud|sees a rainbow|is bored on a rainy day|wants to help but is too small|hides from a storm|follows a
butterfly|carries water up a hill|has to be very brave|keeps a secret|finds a big egg|makes soup for the whole
village|does not want to go to bed|learns to wait|has no shoes|talks to the moon|wants to see the world|loses a
friend and finds a new one|teaches others to dance|looks after a baby|wants to be someone else""")

PLACES = phrases("""in the forest|in a small village|by the sea|in a big city|on a farm|in the mountains|in a castle|at school|in the
garden|on an island|in a quiet street|near a lake|in a toy shop|at the market|in the park|on a ship|in the desert|in the
snow|in an old house|under the ground|on the moon|at the zoo|on a train|in a bakery|in a library|on a hill|by the
river|in the kitchen|in a tall tower|at the beach""")

THINGS = phrases("""a red ball|an old book|a wooden boat|a yellow umbrella|a blue kite|a small key|a bright lamp|a warm
blanket|a silver bell|a broken clock|a bag of seeds|a pair of boots|a music box|a birthday cake|a loaf of bread|a
basket of apples|a green hat|a magic stone|a paper plane|a letter|a bicycle|a drum|a teddy bear|a ladder|a shell|a
feather|a map|a mirror|a candle|a toy train|a big drum|a long rope|a glass jar|a snow globe|a pencil|a box of
paints|a flute|a golden leaf|a scarf|a bucket""")

WISHES = phrases("""a happy end|a funny end|a surprise at the end|a lesson about sharing|a lesson about being honest|a lesson about
friendship|a lesson about courage|a lesson about patience|a lesson about kindness|a lot of talking in it|a song in
it|some magic in it|a lesson about helping others|a lesson about family|a lesson about saying sorry""")

TOPICS = phrases("""the sun|the moon|the stars|the sea|the rain|snow|the wind|clouds|a rainbow|a river|a lake|a mountain|the
forest|a farm|a city|a village|a garden|a school|a hospital|a library|a market|a bakery|a zoo|a train|a bus|a ship|an
airplane|a bicycle|a car|a bridge|a house|a clock|a book|music|painting|dancing|football|swimming|cooking|bread|milk|
cheese|honey|apples|bananas|oranges|tomatoes|potatoes|carrots|rice|soup|chocolate|ice cream|water|fire|ice|sand|stones|
wood|paper|glass|gold|salt|sugar|trees|flowers|grass|leaves|seeds|roots|mushrooms|spring|summer|autumn|winter|morning|
night|sleep|dreams|friends|family|birthdays|holidays|the heart|the eyes|teeth|bones|the brain|the hands|the weather|
thunder|lightning|a storm|a volcano|an earthquake|the desert|an island|the beach|waves|the sky|the earth|the planets|
space|a rocket|a telescope|a magnet|electricity|light|shadows|colours|numbers|letters|maps|money|work|games|toys|kites|
puppets|a castle|a king|a firefighter|a teacher|a doctor|a farmer|a baker|a pilot|a sailor|a mailman|a dentist|a cook|
a nurse|a police officer|kindness|honesty|courage|patience|sharing|happiness|sadness|anger|fear|love|friendship|dogs|cats|
horses|cows|birds|fish|bees|butterflies|ants|elephants|lions|whales|dinosaurs|frogs|owls|bears|penguins|wool|cotton|
a telephone|a computer|a window|a door|a chair|a lamp|a mirror|soap|a toothbrush|an umbrella|shoes|a coat|a
hat|a picnic|a camping trip|a walk in the park|a rainy day|a sunny day|a snowy day|time|a year|a week|the
kitchen|grandparents|babies|neighbours|a pet|tea|eggs|butter|a pizza|a salad|a cake""")

WHY = phrases("""the sky is blue|leaves fall in autumn|we sleep at night|birds sing|birds can fly|the sea is salty|it rains|it
snows|the moon changes its shape|the sun is warm|we have to eat vegetables|we brush our teeth|we wash our hands|cats
purr|dogs wag their tails|bees make honey|ice floats on water|bread rises|the stars shine at night|we need water|plants
need light|we cry|we laugh|people yawn|leaves are green|flowers smell good|we have seasons|the wind blows|we go to
school|we should say thank you|we should say sorry|we should tell the truth|we should share|friends are
important|books are good for us|exercise is healthy|breakfast is important|some animals sleep in winter|fish can live
under water|boats float|planes can fly|magnets stick to iron|we have two eyes|we get sick|we need rest|cows give
milk|sheep have wool|spiders make webs|owls are awake at night|zebras have stripes|giraffes have long necks|elephants
have trunks|camels live in the desert|penguins do not fly|the ocean has waves|mountains have snow on top|we see lightning before
we hear thunder|we wear warm clothes in winter|it is dark at night|days are longer in summer|we have names|people
live in families|we keep pets|onions make us cry|hair grows|our hearts beat|we have bones|wood burns|metal feels
cold|rubber balls bounce|soap cleans|milk goes bad|apples fall down|we dream|we have birthdays|we use money|clocks
have hands|bridges stay up|cars need fuel|trees are important|we should not waste food|we should save water|we
recycle|forests are important|bees are important|we obey rules|we cross the street carefully|we wear helmets""")

HOWTO = phrases("""make a cup of tea|bake bread|bake a cake|cook an egg|make soup|make a sandwich|make pancakes|make a salad|make
lemonade|make a pizza|cook rice|cook pasta|wash my hands well|brush my teeth well|ride a bicycle|learn to swim|tie my
shoes|make a paper plane|make a kite|draw a cat|draw a house|draw a tree|paint a picture|plant a seed|grow
tomatoes|take care of a dog|take care of a cat|take care of a plant|clean my room|wash the dishes|fold a shirt|pack a
bag|write a letter|write a poem|write a story|make a new friend|be a good friend|say sorry|make someone smile|learn a new
language|learn to read faster|remember things better|study for a test|fall asleep|wake up early|stop being afraid of
the dark|stop being angry|feel better when I am sad|be brave|be more patient|save money|save water|save energy|build a
snowman|build a sandcastle|build a bird house|build a tent|make a fire safely|find my way home|cross the street|call
for help|stay healthy|stay warm in winter|stay cool in summer|eat well|get better at football|get better at
drawing|learn to play the piano|learn to sing|learn to dance|plan a party|wrap a present|set the table|feed
the birds|keep a secret|tell a good joke|tell a good story|be polite|help at home|help an old neighbour|look after a
baby|speak in front of people|make a birthday card|wash a dog|catch a fish|watch the stars|make a list|keep a
diary|be on time|share with my sister|get along with my brother|stop biting my nails|calm down before a test""")

PAIRS = phrases("""a lake and a river|a cat and a dog|the sun and the moon|summer and winter|a bee and a wasp|a frog and a toad|a
hill and a mountain|a village and a city|an apple and a pear|milk and water|bread and cake|a car and a bus|a train and a
plane|a boat and a ship|rain and snow|a butterfly and a moth|a mouse and a rat|a horse and a donkey|a duck and a goose|a
fruit and a vegetable|tea and coffee|day and night|a star and a planet|a book and a newspaper|a violin and a guitar|a
doctor and a nurse|a wolf and a dog|a lion and a tiger|a spider and an insect|a tree and a bush|ice and water|a hat and
a cap|a road and a street|a chair and a bench|salt and sugar|butter and cheese|a crow and a raven|a seal and a
whale|a rabbit and a hare|spring and autumn|the sea and a lake|a dream and a wish|a rule and a law|a friend and a
neighbour|a house and a home|sand and stone|gold and silver|a knife and a fork|a pen and a pencil|a song and a
poem""")

FEELINGS = phrases("""sad|angry|tired|lonely|bored|nervous|happy|scared|worried|proud|jealous|excited|shy|sick|confused|disappointed|
grateful|homesick|stressed|hopeful""")

REASONS = phrases("""my friend moved away|I lost my toy|I have a test tomorrow|it is raining all day|my dog is sick|I broke a cup|I
had a fight with my brother|nobody plays with me|I cannot find my keys|I won a prize|it is my birthday|I am going on a
trip|I start at a new school|my team lost|I forgot my homework|I made a mistake|my grandmother is coming|I cannot
sleep|I ate too much cake|I have too much to do|my plant died|I missed the bus|my best friend is angry with me|I have to
speak in front of the class|I got a bad grade|I found a new friend|we got a kitten|my tooth hurts|I am afraid of
dogs|summer is over""")

RELATIVES = phrases("""mother|father|grandmother|grandfather|sister|brother|aunt|uncle|teacher|best friend|cousin|neighbour|little
sister|little brother|daughter|son|wife|husband|classmate|colleague""")

OCCASIONS = phrases("""a birthday|a wedding|a rainy afternoon|a sunny afternoon|a long train ride|a picnic|a weekend at home|a
birthday party|a cold winter evening|a school holiday|a family dinner|a day at the beach|a camping trip|a walk in the
forest|a quiet evening|a visit from a friend|a Sunday morning|the first day of school|a snowy day|a small
garden""")

SMALLTALK = phrases("""Hello!|Hi there!|Good morning!|Good morning.|Good evening!|Good afternoon!|Hello, how are you?|How are you
today?|Hi, how are you doing?|What is your name?|Who are you?|What can you do?|What do you like to do?|Can you help
me?|Thank you!|Thank you for your help!|Thanks a lot.|That was very helpful, thank you.|Goodbye!|Goodbye, and see you
tomorrow.|Good night!|Good night, sleep well.|See you later.|Have a nice day!|Nice to meet you.|Tell me something
nice.|Tell me a joke.|Tell me a story.|Tell me a short story.|Tell me a bedtime story.|What is your favourite colour?|What
is your favourite season?|What is your favourite animal?|What is your favourite food?|What is your favourite book?|What
should we talk about?|Do you like music?|Do you like the rain?|Do you have a friend?|Are you happy?|Are you a
robot?|What makes you happy?|What did you do today?|What time do you go to bed?|Say something kind.|Say hello to my
friend.|I am bored.|I am back.|It is a beautiful day.|It is raining today.|I like you.|You are very kind.|Please help
me.|I have a question.|Can I ask you something?|What is new?|How was your day?|Tell me about yourself.|Sing me a
song.|Let us play a game.|Give me a riddle.|Tell me something about animals.|Tell me a fun fact.|Wish me luck!|Merry
Christmas!|Happy birthday!|Happy new year!|I am sorry.|Welcome back!""")

STARTS = phrases("""One day|One morning|One evening|One rainy day|One cold night|One summer day|Last week|Yesterday|This
morning|On Sunday|In the middle of the night|On the first day of spring|On a windy afternoon|Long ago|Once upon a
time""")


POSITIVE = {"happy", "proud", "excited", "grateful", "hopeful"}
ODD_PLURALS = {"mouse": "mice", "wolf": "wolves", "fish": "fish", "sheep": "sheep", "deer": "deer", "goose": "geese",
               "butterfly": "butterflies", "pony": "ponies", "puppy": "puppies", "fox": "foxes", "ladybug": "ladybugs",
               "octopus": "octopuses"}


def cap(s):
    return s[0].upper() + s[1:]


def an(phrase):
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def is_are(topic):
    many = topic == "teeth" or topic.endswith("s") and not topic.endswith("ss") and not topic.startswith("a ")
    return f"{cap(topic)} {'are' if many else 'is'}"


def to_you(h):
    swap = {"my": "your", "me": "you", "I": "you", "am": "are"}
    return " ".join(swap.get(w, w) for w in h.split())


def hero(r):
    if r.random() < 0.4:
        return r.choice([p for p in PEOPLE if not many(p) and p != "a family"])
    return an(f"{r.choice(TRAITS)} {r.choice(ANIMALS)}")


def name_for(r, hero):
    words = set(hero.split())
    if words & {"girl", "grandmother", "princess", "witch", "hen", "cow"}:
        return r.choice(NAMES[:25])
    if words & {"boy", "grandfather", "king", "knight", "wizard", "fisherman", "mailman", "rooster", "snowman"}:
        return r.choice(NAMES[25:])
    return r.choice(NAMES)


def many(p):
    return p.startswith(("two ", "three ")) or p == "twins"


def story(r):
    c, p = hero(r), r.choice(PROBLEMS)
    n, m = name_for(r, c), r.choice(NAMES)
    place, thing, wish, start = r.choice(PLACES), r.choice(THINGS), r.choice(WISHES), r.choice(STARTS)
    group = r.choice([g for g in PEOPLE if many(g)])
    a, b, ta, tb = r.choice(ANIMALS), r.choice(ANIMALS), r.choice(TRAITS), r.choice(TRAITS)
    once = f"Once upon a time, there was {c} named {n}."
    about = f"{c} who {p}"
    head = f"Here is a story about {about}.\n\n" if r.random() < 0.5 else ""
    return r.choice([
        lambda: (f"Tell me a story about {about}.", head + once),
        lambda: (f"Tell me a short story about {about}.", head + once),
        lambda: (f"Write a story about {about}.", head + once + f" {start if start != 'Once upon a time' else 'One day'},"),
        lambda: (f"Tell me about {c} who {p}.", f"There was once {c} named {n}."),
        lambda: (f"Write a short story about {c} {place}. It should have {wish}.",
                 f"Once upon a time, {place}, there lived {c} named {n}."),
        lambda: (f"Tell me a story with {wish} about {about}.", head + once),
        lambda: (f"Please tell me a little story about {c} and {thing}.", once + f" One day, {n} found {thing}."),
        lambda: (f"Tell me a bedtime story about {c} {place}.", f"Once upon a time, {c} lived {place}."),
        lambda: (f"Write a short story about {n}, {c} who {p}.", f"{n} was {c}."),
        lambda: (f"Once upon a time there was {c} who lived {place}. Tell me what happened next.", f"One day, the {c.split(' ', 1)[1]}"),
        lambda: (f"Once upon a time there was {c} named {n} who found {thing}.", f"{n} looked at the {thing.split(' ', 1)[1]} and"),
        lambda: (f"{start}, {n} finds {thing} {place}. What happens next?", f"{n} picks up the {thing.split(' ', 1)[1]} and"),
        lambda: (f"{n} and {m} are {place}. They find {thing}. Tell me the rest of the story.", f'"Look!" said {n}.'),
        lambda: (f"{an(ta).capitalize()} {a} and {an(tb)} {b} meet {place}. What happens next?", f'The {a} looked at the {b} and said, "'),
        lambda: (f"Write a story about {c} who {p}. {start}, everything changes.", once),
        lambda: (f"Tell me a story about {n}, who {p}, and {c} who helps.", f"There was once a child named {n}."),
        lambda: (f"Tell a story that takes place {place}, with {c}, {thing} and {wish}.", f"{cap(place)}, there was {c}."),
        lambda: (f"Tell me a story about {group} and {thing}.", f"Once upon a time, there were {group} who found {thing}."),
        lambda: (f"Tell me a story about two friends, {n} and {m}, {place}.", f"Once upon a time, two friends named {n} and {m} were {place}."),
        lambda: ("Tell me a story.", once),
        lambda: (f"Tell me {an(ta)} story.", once),
    ])()


def facts(r):
    t, a = r.choice(TOPICS), r.choice(ANIMALS)
    ani = ODD_PLURALS.get(a, a + "s")
    why, pair = r.choice(WHY), r.choice(PAIRS)
    one, two = pair.split(" and ", 1)
    child = r.choice(["daughter", "son", "little sister", "little brother", "friend"])
    because = f"{cap(why)} because"
    return r.choice([
        lambda: (f"Tell me about {t}.", is_are(t)),
        lambda: (f"Tell me something about {t}.", is_are(t)),
        lambda: (f"What can you tell me about {t}?", is_are(t)),
        lambda: (f"What do you know about {t}?", f"I know that {t}"),
        lambda: (f"What {'are' if is_are(t).endswith('are') else 'is'} {t}?", is_are(t)),
        lambda: (f"Explain {t} to a child.", f"{is_are(t)} like"),
        lambda: (f"Explain {t} in simple words.", is_are(t)),
        lambda: (f"Describe {t} in a few sentences.", cap(t)),
        lambda: (f"Give me three facts about {t}.", f"Here are three facts about {t}:\n\n1."),
        lambda: (f"What do people like about {t}?", f"People like {t} because"),
        lambda: (f"What do {ani} eat?", f"{cap(ani)} eat"),
        lambda: (f"Where do {ani} live?", f"{cap(ani)} live"),
        lambda: (f"Tell me about {ani}.", f"{cap(ani)} are"),
        lambda: (f"What do {ani} do all day?", f"{cap(ani)} spend the day"),
        lambda: (f"How do {ani} sleep?", f"{cap(ani)} sleep"),
        lambda: (f"Explain why {why}.", because),
        lambda: (f"Can you tell me why {why}?", f"Yes! {because}"),
        lambda: (f"Explain why {why} in words that a child can understand.", because),
        lambda: (f"Do you know why {why}?", f"Yes, I do. {because}"),
        lambda: (f"My {child} asked me why {why}. What should I say?", f"You can say: \"{because}"),
        lambda: (f"What is the difference between {one} and {two}?", f"{cap(one)} and {two} are not the same. {cap(one)} is"),
        lambda: (f"Which do you like more, {one} or {two}? Why?", f"I like {r.choice([one, two])} more, because"),
    ])()


def advice(r):
    h, f, why, rel, occ = r.choice(HOWTO), r.choice(FEELINGS), r.choice(REASONS), r.choice(RELATIVES), r.choice(OCCASIONS)
    you, react = to_you(h), "I am glad to hear that!" if f in POSITIVE else "I am sorry to hear that."
    steps = f"Here is how to {you}:\n\n1."
    return r.choice([
        lambda: (f"How do I {h}?", f"To {you}, you"),
        lambda: (f"How can I {h}?", f"You can {you}"),
        lambda: (f"Can you tell me how to {h}?", f"Of course! {steps}"),
        lambda: (f"I want to {h}. What should I do first?", "First, you should"),
        lambda: (f"Teach me how to {h} in a few easy steps.", steps),
        lambda: (f"Please explain to a child how to {h}.", f"If you want to {you},"),
        lambda: (f"What should I do when I feel {f}?", f"When you feel {f}, you can"),
        lambda: (f"I feel {f} because {why}.", react),
        lambda: (f"I feel {f} today. What can I do?", f"{react} You can"),
        lambda: (f"My {rel} is {f}. What can I say?", f"You can say to your {rel}: \""),
        lambda: (f"Say something kind to my {rel}, who feels {f}.", f"Dear {rel}, I know that you feel {f}."),
        lambda: (f"Today {why}. What should I do?", "You should"),
        lambda: (f"Give me an idea for a present for my {rel}.", f"You could give your {rel}"),
        lambda: (f"Give me three ideas for {occ}.", f"Here are three ideas for {occ}:\n\n1."),
        lambda: (f"What can we do on {occ}?", "You can"),
        lambda: (f"What food should I make for {occ}?", f"For {occ}, you can make"),
        lambda: (f"My {rel} is coming to visit. What could we do together?", f"You and your {rel} could"),
        lambda: (f"What games can I play with my {rel} on {occ}?", f"You and your {rel} can play"),
        lambda: (f"Is it good to {h}? Why?", f"Yes, it is good to {you}, because"),
    ])()


def writing(r):
    n = r.choice(["two", "three", "four", "five"])
    t, c, place, rel, thing = r.choice(TOPICS), hero(r), r.choice(PLACES), r.choice(RELATIVES), r.choice(THINGS)
    the = "The " + c.split(" ", 1)[1]
    return r.choice([
        lambda: (f"Write {n} sentences about {t}.", cap(t)),
        lambda: (f"Write {n} sentences about {c} {place}.", f"{the} is {place}."),
        lambda: (f"Write a short letter to my {rel} about {t}.", f"Dear {rel},\n\n"),
        lambda: (f"Write a short letter to my {rel} to say thank you for {thing}.", f"Dear {rel},\n\nThank you for"),
        lambda: (f"Write a short poem about {t}.", f"{cap(t)},"),
        lambda: (f"Write a birthday wish for my {rel}, who likes {t}.", f"Happy birthday, dear {rel}!"),
        lambda: (f"Describe {thing} {place}.", f"{cap(place)}, there is {thing}. It is"),
        lambda: (f"Describe a day {place}.", f"In the morning, {place},"),
        lambda: (f"Describe a day in the life of {c}.", f"{the} wakes up"),
        lambda: (f"Write a diary page of {c}.", "Dear diary,\n\ntoday I"),
        lambda: (f"Write a short talk between {c} and {thing.replace('a ', 'a talking ', 1)}.", f"{the}: \"Hello!"),
        lambda: (f"Make a short list of things that we need for {r.choice(OCCASIONS)}.", "Here is a short list:\n\n1."),
        lambda: (f"Tell me what {c} does from the morning until the evening.", f"In the morning, {the.lower()}"),
        lambda: (f"Tell me what you can see {place}.", f"{cap(place)}, you can see"),
    ])()


def smalltalk(r):
    return r.choice(SMALLTALK), ""


KINDS = [(story, 0.48), (facts, 0.22), (advice, 0.15), (writing, 0.13), (smalltalk, 0.02)]


def make(count, seed):
    """Returns count (kind, prompt, opening of the answer), the same for the same seed."""
    r = random.Random(seed)
    fns, weights = zip(*KINDS)
    out = []
    for fn in r.choices(fns, weights, k=count):
        prompt, opening = fn(r)
        out.append((fn.__name__, cap(prompt), opening))
    return out


if __name__ == "__main__":
    for kind, prompt, opening in make(40, 1):
        print(f"{kind:10} {prompt} | {opening!r}")
