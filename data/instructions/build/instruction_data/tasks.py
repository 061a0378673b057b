"""What is asked for: forms of short English writing tasks, and the subjects that fill them."""

from dataclasses import dataclass

HELD_OUT = 5  # of the subjects of each form, only for evaluation


@dataclass(frozen=True)
class Form:
    """A kind of task.

    Attributes:
        wordings: ways to ask; `{}` is the subject.
        subjects: the last `HELD_OUT` are for evaluation.
        words: what an answer may well say, for instructions about keywords.
    """

    name: str
    wordings: tuple[str, ...]
    subjects: tuple[str, ...]
    words: tuple[str, ...]

    def subjects_of(self, held_out: bool) -> tuple[str, ...]:
        """The subjects of one side of the split."""
        return self.subjects[-HELD_OUT:] if held_out else self.subjects[:-HELD_OUT]


def _form(name: str, wordings: tuple[str, ...], subjects: str, words: str) -> Form:
    return Form(name, wordings, tuple(s.strip() for s in subjects.split(";")), tuple(words.split()))


FORMS = (
    _form(
        "story",
        ("Tell a short story about {}.", "Make up a small tale in which we meet {}.", "I would love a story about {}."),
        "a baker who loses her oven mitts; two foxes in a library; a lamp that is afraid of the dark; a mail "
        "carrier on a tiny island; a clock that runs backward on Sundays; a girl who plants buttons; a bus driver "
        "with a secret garden; a robot who learns to whistle; a snail who enters a race; twins who swap hats; a "
        "king without a spoon; a piano in the woods; a boy who collects echoes; a goat on a ferry; the last train "
        "of the winter; a painter who only owns blue paint; a nervous dragon; a door that nobody opens; an owl with "
        "new glasses; a cook on a small ship; a scarecrow who wants to travel; a tailor and a cloud; a lost kite; a "
        "very polite ghost",
        "door night promise river window friend letter morning road smile garden storm",
    ),
    _form(
        "email",
        ("Write an email to {}.", "Draft a brief email for {}.", "Help me write a message to {}."),
        "my landlord about a leaking tap; a teacher about a missed exam; our team about the new meeting room; a "
        "shop that sent the wrong shoes; my aunt to thank her for a scarf; a hotel about a late arrival; the "
        "neighbors about a street party; a coach about a sore knee; the library about a book that I lost; a client "
        "about a delayed delivery; my boss about working from home on Friday; a friend who is moving away; a museum "
        "about group tickets; the city about a broken street lamp; a dentist to change an appointment; an old "
        "classmate; a plumber about a price; the school kitchen about peanuts; a band that I want to hire; a gym "
        "about ending my contract; a baker about a birthday cake; my professor about a reference; a bike shop about "
        "a repair; our new intern",
        "please reply week help question phone thanks address time soon offer meeting",
    ),
    _form(
        "explain",
        (
            "Explain {} to a curious child.",
            "In simple terms, what should I know about {}?",
            "Give a plain account of {}.",
        ),
        "why leaves change color; how soap works; what a magnet does; why we yawn; how bread rises; what makes "
        "thunder; how a zipper closes; why the moon has phases; how bees find flowers; what rust is; how a fridge "
        "stays cold; why ice floats; how maps show hills; what an echo is; how seeds travel; why cats purr; how a "
        "pencil is made; what a budget is; how fish breathe; why onions make us cry; how a rainbow forms; why salt "
        "melts snow; what a volcano is; how glasses help us see",
        "water air light heat reason small energy slowly example because world change",
    ),
    _form(
        "advice",
        ("Give some advice to {}.", "What would you suggest to {}?", "Write helpful tips for {}."),
        "someone who starts to run; a student who sleeps too little; a new dog owner; a person who moves to a big "
        "city; someone who wants to read more; a beginner at chess; a nervous speaker; a family with a small "
        "kitchen; someone who forgets names; a first-time camper; a cook who burns rice; someone who works at "
        "night; a new manager; a person who wants to save money; a shy guest at a wedding; a gardener with bad "
        "soil; someone who learns Italian; a painter with little space; a teenager with a first job; a driver in "
        "heavy snow; someone who wants to drink less coffee; a traveler with one bag; a parent of twins; a singer "
        "with a cold",
        "start plan habit practice rest simple daily goal patience listen step enjoy",
    ),
    _form(
        "describe",
        ("Describe {}.", "Paint a picture in words of {}.", "Write a vivid description of {}."),
        "a harbor at dawn; a crowded spice market; an attic full of toys; the first snow in a village; a train "
        "station at midnight; a greenhouse in the rain; an old cinema; a beach in winter; a kitchen on a holiday; a "
        "forest after a fire; a rooftop in summer; a quiet classroom; a county fair; a desert under the stars; a "
        "watchmaker's shop; a street after a storm; a small airport; a mountain hut; a pond at noon; a busy bakery; "
        "a lighthouse in fog; a flea market; an empty stadium; a night bus",
        "light shadow smell wind color voice stone warm silence sky dust bright",
    ),
    _form(
        "ideas",
        ("List ideas for {}.", "Suggest a few ideas for {}.", "I need ideas for {}. What comes to mind?"),
        "a rainy weekend; a cheap birthday gift; a school science fair; a team lunch; a small balcony; a family "
        "game night; using up stale bread; a neighborhood clean-up; a first date; a bedtime routine; a summer "
        "reading club; a retirement party; decorating a plain room; a healthy snack; a short road trip; raising "
        "money for a shelter; a picnic in the park; a class about birds; a podcast about food; old glass jars; a "
        "winter walk; a craft with paper; a welcome basket; a garden on a windowsill",
        "fun cheap music color share friends paper photo outside simple food game",
    ),
    _form(
        "product",
        (
            "Write an advertisement for {}.",
            "Write a short product text for {}.",
            "Help me sell {} in a few lines.",
        ),
        "a folding bicycle; a solar lantern; a quiet blender; wool socks; a standing desk; a raincoat for dogs; a "
        "mug that keeps tea hot; a wooden puzzle; a tent for two; a garden hose; an alarm clock without a screen; "
        "reusable wrapping paper; a pocket notebook; a bamboo toothbrush; a cast-iron pan; a pillow for travelers; "
        "a bird feeder; a lunch box with three layers; a fountain pen; a yoga mat; a backpack for students; a night "
        "light; a set of knives; a rubber duck",
        "comfort price quality new today easy strong gift order design save love",
    ),
    _form(
        "review",
        ("Write a review of {}.", "Share an honest opinion on {}.", "What might a reviewer say about {}?"),
        "a noodle bar with slow service; a museum of toys; a film about bees; a hotel next to a highway; a novel "
        "set on the moon; a pair of cheap headphones; a concert in a barn; a cooking class; a board game about "
        "trade; a new phone with a weak battery; a ferry ride; a bakery with no chairs; a play for children; a "
        "guided city tour; a language app; an escape room; a swimming pool at night; a podcast on history; a "
        "secondhand shop; a vegan burger; a campsite by a lake; a barber shop; a documentary on ice; a bus pass for "
        "tourists",
        "service price quality staff again friendly loud worth minutes better star place",
    ),
    _form(
        "poem",
        ("Write a poem about {}.", "Compose a few lines of verse on {}.", "Could you write a little poem on {}?"),
        "an empty playground; the smell of coffee; my grandmother's hands; a stubborn weed; the number seven; a "
        "sleeping city; a broken umbrella; the sea in March; a paper boat; old stairs; a cat at the window; Monday; "
        "a slow river; lost keys; fresh bread; a long goodbye; the color green; an unread book; a summer storm; a "
        "lighthouse; a red scarf; the first bell; wet leaves; a chess game",
        "dream song heart night rain sleep gold whisper time home leaf blue",
    ),
    _form(
        "letter",
        ("Write a letter from {}.", "Imagine a letter from {} and write it.", "Compose a letter that comes from {}."),
        "a sailor to his sister; a tree to a woodcutter; a grandfather to a newborn; a tooth to the tooth fairy; an "
        "astronaut to her class; a cat to its owner; a shy inventor to a bank; a mayor to a rival town; a farmer to "
        "the weather; a sock to its lost twin; a chef to a critic; an explorer to his mother; a student to a host "
        "family; a gardener to a mole; a retired clown to a circus; a detective to a witness; a snowman to the sun; "
        "a pilot to his crew; a nurse to her patients; a violin to its player; a pen to a poet; a shepherd to the "
        "king; a beekeeper to her bees; a painter to a model",
        "dear hope home miss years write remember please always news sincerely heart",
    ),
    _form(
        "compare",
        ("Compare {}.", "What sets these two apart: {}?", "Weigh the good and bad sides of {}."),
        "tea and coffee; trains and buses; cats and dogs; summer and winter; books and films; city life and village "
        "life; pens and pencils; rice and pasta; skiing and skating; early mornings and late nights; email and "
        "phone calls; lakes and oceans; renting and buying; soup and salad; gardens and balconies; chess and "
        "checkers; wool and cotton; maps and compasses; gold and silver; bread and cake; bikes and scooters; flutes "
        "and drums; islands and mountains; paper bags and cloth bags",
        "cost time quiet choice better people often cheap slow easy reason both",
    ),
    _form(
        "howto",
        ("Tell me how to {}.", "Write a guide on how to {}.", "What is a good way to {}?"),
        "wash a wool sweater; fold a paper crane; make pancakes; repot a cactus; fix a flat bicycle tire; write a "
        "thank-you card; clean a window; pack a suitcase; brew green tea; train a puppy to sit; paint a chair; "
        "build a sandcastle; plan a surprise party; sharpen a knife; grow tomatoes; choose a melon; tie a scarf; "
        "make a paper lantern; memorize a poem; start a campfire; iron a shirt; bake a potato; mend a sock; hang a "
        "picture",
        "first then water careful gently dry minutes finish clean hold ready slowly",
    ),
)

QUESTIONS = _form(
    "question",
    ("Is it a good idea to {}?", "Would you {}?", "Do you think that people should {}?"),
    "eat breakfast every day; keep a diary; learn two languages at once; own a parrot; walk to work in the rain; read "
    "the last page first; nap after lunch; buy shoes online; cook without salt; sleep with the window open; travel "
    "alone; share a desk; take cold showers; paint a ceiling black; work on Sundays; lend books to strangers; grow "
    "mint indoors; skip dessert; write letters by hand; sell old toys; swim in a lake at night; bring a cake to work; "
    "keep bees in a city; wear white in winter",
    "yes no",
)
