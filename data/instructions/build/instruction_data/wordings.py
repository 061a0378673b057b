"""Wordings of the instructions, each of which asks for what its check looks at."""

WORDINGS: dict[str, tuple[str, ...]] = {
    "change_case:capital_word_frequency at least": (
        "Put at least {n} word{s} in ALL CAPS.",
        "At least {n} word{s} must be written in capitals only.",
        "Stress no fewer than {n} word{s} by spelling them in capital letters.",
        "Somewhere, use capital letters for {n} or more whole words.",
    ),
    "change_case:capital_word_frequency less than": (
        "Keep words in ALL CAPS to fewer than {n}.",
        "No more than {most} words may be in capitals throughout.",
        "Fully capitalized words may occur less than {n} times.",
        "Hardly use all-caps words: stay below {n} of them.",
    ),
    "change_case:english_capital": (
        "Write it all in CAPITAL LETTERS, in English.",
        "Use English and capital letters only.",
        "Every letter has to be a capital, and the language English.",
        "Please shout: the full reply in uppercase English.",
    ),
    "change_case:english_lowercase": (
        "Write it all in lowercase English.",
        "Use small letters only, no capitals, and stay in English.",
        "not a single capital letter, please, and english throughout.",
        "Type as if the shift key were broken: only lowercase English.",
    ),
    "combination:repeat_prompt": (
        "Before you answer, copy the request above exactly as it stands. Then answer it. This paragraph is not part of "
        "the request.",
        "Begin with the request above, repeated to the letter, and put nothing in front of it; your answer comes "
        "after. Leave this note out.",
        "Start your reply by restating the request above without altering a word, then respond to it. Do not restate "
        "this part.",
        "Quote the request above in full first, unchanged and without quotation marks, and only then reply. What you "
        "read here is not to be quoted.",
    ),
    "combination:two_responses": (
        "Offer two versions that differ, with ****** between them and nowhere else.",
        "I want a pair of different answers. Put a line of six asterisks (******) between the two.",
        "Answer twice, not in the same words, and part the two answers by ******.",
        "Write two alternatives. The only divider is ******, placed once between them.",
    ),
    "detectable_content:number_placeholders": (
        "Leave at least {n} placeholder{s} in square brackets, like [date].",
        "Use {number} or more bracketed blanks such as [place].",
        "There should be {n} or more gaps to fill in, each marked like [number].",
        "Work in at least {number} [bracketed] placeholder{s}.",
    ),
    "detectable_content:postscript": (
        "Close with a postscript that starts with {marker}",
        "After the end, add a note that opens with {marker}",
        "Do not forget a postscript at the bottom, marked {marker}",
        "Add one more thought under {marker} when you are done.",
    ),
    "detectable_format:constrained_response": (
        'Pick a reply. For it: "My answer is yes." Against it: "My answer is no." Undecided: "My answer is maybe."',
        "Reply with one line out of three. First choice: My answer is yes. Second choice: My answer is no. Third "
        "choice, if unsure: My answer is maybe.",
        "There are three permitted replies: a) My answer is yes. b) My answer is no. c) My answer is maybe. Give one.",
        "Say just this and fill in the verdict: My answer is yes. You may put no or maybe where yes stands.",
    ),
    "detectable_format:json_format": (
        "Return nothing but valid JSON.",
        "Your reply must parse as JSON; a code fence around it is fine.",
        "Give the whole reply as one JSON object.",
        "Format all of it as JSON, without text around it.",
    ),
    "detectable_format:multiple_sections": (
        "Divide it into {number} sections that begin with {word} 1, {word} 2 and so on.",
        "Use {n} parts, headed {word} 1 to {word} {n}.",
        "Structure: {number} numbered pieces, each under a heading such as {word} 1.",
        'Number the pieces: "{word} 1", "{word} 2", up to {n}.',
    ),
    "detectable_format:number_bullet_lists": (
        "Include exactly {number} bullet points that start with an asterisk or a dash.",
        "There must be {n} bullets, no more and no less (write them as * or -).",
        "Make it a list with {n} Markdown bullets (each line opens with a star or a dash).",
        "Use precisely {number} bullet points (- like this).",
    ),
    "detectable_format:number_highlighted_sections": (
        "Highlight at least {number} phrase{s} with asterisks, *like this*.",
        "Mark {n} or more key phrases in Markdown, as in *key phrase*.",
        "Set off no fewer than {number} passage{s} by *asterisks*.",
        "Use Markdown emphasis (*so*) at least {n} time{s}.",
    ),
    "detectable_format:title": (
        "Give it a title inside double angle brackets: <<title>>.",
        "Put a heading in <<these marks>> on top.",
        "It needs a title, written like <<My Title>>.",
        "Name your text, and wrap the name in << and >>.",
    ),
    "keywords:existence": (
        "Use the word{s} {words}.",
        "The word{s} {words} must come up.",
        "Work in the following: {words}.",
        "Make sure that {words} can be found in your text.",
    ),
    "keywords:forbidden_words": (
        "Avoid the word{s} {words}.",
        "Never say {words}.",
        "You may not write {words} anywhere.",
        "Do without the word{s} {words}.",
    ),
    "keywords:frequency at least": (
        'Say "{word}" at least {n} times.',
        'The word "{word}" has to occur {n} times or more.',
        'Repeat the word "{word}" until it has come up at least {n} times.',
        'Use "{word}" no fewer than {n} times.',
    ),
    "keywords:frequency less than": (
        'Say "{word}" fewer than {n} times.',
        'The word "{word}" may come up at most {most} time{plural_most}.',
        'Do not overuse "{word}": it must stay below {n} mentions.',
        'Use "{word}" less than {n} times, or not at all.',
    ),
    "keywords:letter_frequency at least": (
        "The letter {letter} must occur at least {n} times.",
        "Choose words so that you use the letter {letter} {n} times or more.",
        'Count your letters: "{letter}" at least {n} times, please.',
        "Let there be {n} or more of the letter {letter}.",
    ),
    "keywords:letter_frequency less than": (
        "The letter {letter} must occur fewer than {n} times.",
        "Choose words so that the letter {letter} comes up at most {most} time{plural_most}.",
        'Count your letters: "{letter}" less than {n} times, please.',
        "Go easy on the letter {letter}: under {n} in total.",
    ),
    "language:response_language": (
        "Answer in {language} only.",
        "Reply in {language}; do not use another language.",
        "I only read {language}, so write nothing else.",
        "The language of all of it must be {language}.",
    ),
    "length_constraints:nth_paragraph_first_word": (
        'Write {number} paragraphs with a blank line between them; number {nth} begins with the word "{word}".',
        'I want {n} paragraphs, parted by empty lines. Let paragraph {nth} open with "{word}".',
        'Make it {number} paragraphs, an empty line between each, and start paragraph {nth} on the word "{word}".',
        'Format: {n} paragraphs, blank lines between them. First word of paragraph {nth}: "{word}".',
    ),
    "length_constraints:number_paragraphs": (
        "Write {number} paragraphs and put *** between them.",
        "Use exactly {n} paragraphs, divided by a line that says ***",
        "There should be {number} paragraphs; the divider is ***.",
        "Split the text into {n} paragraphs by means of the Markdown rule ***",
    ),
    "length_constraints:number_sentences at least": (
        "Write at least {n} sentences.",
        "It takes {n} or more sentences.",
        "No fewer than {n} sentences, please.",
        "Do not stop before you have {n} full sentences.",
    ),
    "length_constraints:number_sentences less than": (
        "Write fewer than {n} sentences.",
        "It may take {most} sentences at most.",
        "Less than {n} sentences, please.",
        "Stop before you reach {n} sentences.",
    ),
    "length_constraints:number_words at least": (
        "Write at least {n} words.",
        "It should be {n} words or longer.",
        "No fewer than {n} words, please.",
        "Make it long enough: {n} words at the minimum.",
    ),
    "length_constraints:number_words less than": (
        "Write fewer than {n} words.",
        "Keep it short, under {n} words.",
        "Less than {n} words, please.",
        "It must not reach {n} words.",
    ),
    "punctuation:no_comma": (
        "Do not use commas.",
        "Leave out all commas.",
        "Commas are not allowed anywhere.",
        "Write it so that no comma is needed and none is used.",
    ),
    "startend:end_checker": (
        "The last words must be: {phrase}",
        'End with "{phrase}" and add nothing after it.',
        'Your final line is "{phrase}", to the letter.',
        "Sign off with exactly this: {phrase}",
    ),
    "startend:quotation": (
        'Put all of it between double quotation marks (").',
        'The first and the last character must be a double quote: ".',
        "Wrap everything you write in double quotes.",
        'Begin with " and finish with ", as if you quoted someone.',
    ),
}
