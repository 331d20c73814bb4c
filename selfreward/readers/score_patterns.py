"""Patterns of the statements that may be a verdict of `Score: n`, and of what may follow their number."""

import re

from selfreward.readers import languages
from selfreward.readers.normalised_text import BLANK

MARK = r"[ \t*_]{0,8}"
NUMBER = r"[0-9]{1,400}(?:\.[0-9]{1,400})?"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
# (?a:) because "ı" and "ſ" are i and s to a pattern that ignores case.
ANY_NUMBER = rf"(?:{NUMBER}|(?a:{'|'.join(WORDS)}))"
NOUN = r"(?:score|rating|grade)"
START, STOP = r"(?<![^\W_])", rf"(?!(?!{languages.CJK_UNIT}|pts?\b)[^\W_])"  # of a word; an underscore is Markdown
# Saves most attempts to match. In CJK text, and in text without spaces, there is no space before a word.
NOT_IN_WORD = r"(?:(?<![A-Za-z0-9])|(?<=\S{200}))"
UNIT = languages.UNIT
FINAL = r"(?:(?:final|total|overall|revised|updated|adjusted|corrected)[ \t]){1,3}"
WHOSE = r"(?:(?:the|my)[ \t])?(?:response(?:'s)?[ \t])?"
OBJECT = (
    r"(?:it|this|(?:the|this)(?:[ \t](?:assistant's|AI's|model's|original|given|actual))?[ \t](?:response|answer"
    r"|reply))"
)
OF = rf"(?:[ \t](?:for|of)[ \t]{OBJECT})?"
BOXED = r"(?:\${0,2}[ \t]?\\boxed[ \t]?\{(?:Score:[ \t]?)?|[\[(<{$]{0,2})"
SPAN = (
    rf"[ \t]?[(\[](?:(?:out of|of|max\.?|/|von|sur|de|из|满分"
    rf"|滿分)[为:]?[ \t]?|(?P<least>{NUMBER})[ \t]?(?:[-–—~]|to|bis|à|a|至|到)[ \t]?)"
    rf"(?P<most>{NUMBER})(?:[ \t]?{UNIT})?[)\]]"
)
TAIL = rf"{languages.TOTAL_BEFORE}{BOXED}(?P<number>[+\-−]?{ANY_NUMBER}){STOP}[\])>}}$]{{0,3}}{MARK}"
# "Score: 4", "Final score for this response = 4", "Total: 4"; the number may be on the line below.
HEAD = re.compile(
    rf"{NOT_IN_WORD}{WHOSE}(?:(?P<final>{FINAL})?{NOUN}|(?P<whole>{FINAL}points?|(?:{FINAL})?verdict|final|total|overall))"
    rf"{OF}(?:{SPAN})?{MARK}(?:[:=]|->|→|[ \t][–—-](?=[ \t]))(?:{MARK}[:=])?"
    rf"{MARK}(?:\n[ \t]{{0,8}}){{0,2}}{MARK}{TAIL}",
    re.IGNORECASE,
)
# "Bewertung: 4", "La note est de 4 sur 5", "评分：4分".
AFTER_HEAD = rf"(?:{MARK}[:=])?{MARK}(?:\n[ \t]{{0,8}}){{0,2}}{MARK}{TAIL}"
FOREIGN_HEAD = re.compile(
    rf"{START}{languages.BEFORE_NOUN}{languages.NOUN}{languages.AFTER_NOUN}(?:{SPAN})?"
    rf"(?:{MARK}(?:[:=]|->|→|[ \t][–—-](?=[ \t]))|{languages.IS}){AFTER_HEAD}",
    re.IGNORECASE,
)
CJK_HEAD = re.compile(rf"{languages.CJK_HEAD}(?:{SPAN})?(?:{MARK}(?:[:=]|->|→)|{languages.CJK_IS}){AFTER_HEAD}")
# "[RESULT] 4", the form that Prometheus was trained on.
RESULT = re.compile(rf"\[(?:RESULT|SCORE|RATING|{languages.CJK_NAME})\][ \t]{{0,4}}:?{MARK}{TAIL}")
# "I would lower it to 2.", "The score is reduced to 3."
CHANGE = (
    r"(?:lower|reduce|decrease|raise|increase|change|adjust|revise|correct|update|downgrade|upgrade|bump|drop)"
    r"(?:p?e?[ds])?"
)
TO = rf"(?:[ \t](?:down|up))?(?:[ \t]from[ \t]{ANY_NUMBER})?[ \t]to(?:[ \t]an?)?"
# "The score is 4.", "I would give this response a score of 4.", "The response earns a total of 4 points."
GIVE = r"(?:giv(?:es?|ing)|gave|rat(?:ed?|ing)|scor(?:ed?|ing)|grad(?:ed?|ing)|assign(?:ed|ing)?|award(?:ed|ing)?)"
FITTING = r"(?:appropriate|fair|fitting|reasonable|suitable|right|correct|deserved|justified|warranted|merited)"
WILL = r"(?:'d|'ll|'m|'ve|[ \t](?:would|will|have|am|can|must|should))?(?:[ \t](?:therefore|thus|also|now))?"
EARN = r"(?:gets?|receives?|earns?|deserves?|merits|scores?|rates|is[ \t](?:given|awarded|rated|scored|graded))"
SENTENCE = re.compile(
    rf"{START}(?:(?:(?:an?|the|my|its|your)[ \t])?(?:{FITTING}[ \t])?(?:response(?:'s)?[ \t])?"
    rf"(?P<final>{FINAL})?(?:{NOUN}|total){OF}"
    rf"[ \t](?:(?:is|would be|should be)(?:[ \t]{CHANGE}{TO})?|comes to)[ \t:]"
    r"|(?:I|we)(?:'d|'ll|'ve|[ \t](?:would|will|have|must|should))?(?:[ \t](?:like|have|want|need)[ \t]to)?"
    rf"[ \t]{CHANGE}[ \t](?:it|this|that|(?:the|my)[ \t](?:{FINAL})?{NOUN}){TO}[ \t]"
    rf"|(?:(?:I|we){WILL}[ \t](?:{GIVE}|settle[ \t]on|go[ \t]with)(?:[ \t]{OBJECT})?[ \t])?"
    rf"an?[ \t](?:{FITTING}[ \t])?(?:{FINAL})?(?:{NOUN}|total)[ \t]of[ \t]"
    rf"|(?P<given>(?:I|we){WILL}[ \t](?:{GIVE}(?:[ \t]{OBJECT})?|say|settle[ \t]on|go[ \t]with)"
    rf"|{OBJECT}[ \t](?:(?:would|should|will)[ \t])?{EARN})"
    rf"(?:[ \t](?:an?|at|as|with))?(?P<named>[ \t](?:{FINAL})?(?:{NOUN}|total)(?:[ \t]of)?)?[ \t])"
    rf"{MARK}{TAIL}",
    re.IGNORECASE,
)
RATED = re.compile(rf"(?:I|we)\b.*\b(?:rate|score|grade)d?[ \t]{OBJECT}|.*(?:bewerte|оцениваю|note\b)", re.IGNORECASE)
# "Ich gebe der Antwort 4 von 5 Punkten.", "Le asigno una puntuación de 4.", "我给这个回答4分。"
FOREIGN_SENTENCE = re.compile(
    rf"{START}(?P<given>{languages.I_GIVE})(?P<named>[^\n.!?;:0-9]{{1,48}}?\b{languages.NOUN}\b)?"
    rf"[^\n.!?;:0-9]{{0,48}}?(?<![0-9]){TAIL}",
    re.IGNORECASE,
)
CJK_SENTENCE = re.compile(rf"(?P<given>{languages.GIVES})[ \t]?(?={MARK}[0-9][^\n]{{0,12}}{languages.CJK_UNIT}){TAIL}")
# "5点満点中4点です。", "5점 만점에 4점입니다.", "满分5分，得4分。"
CJK_OF_TOTAL = re.compile(rf"{languages.OF_TOTAL}{TAIL}")
# "A score of 4 out of 5 is appropriate."
FITS = re.compile(
    rf"(?:is|was|seems|feels|would be)[ \t](?:the[ \t])?(?:most[ \t]|more than[ \t])?(?:{FITTING}|given|assigned"
    rf"|awarded)"
    rf"(?:[ \t](?:here|overall|for (?:it|this)|for (?:the|this) response))?|{languages.INFINITIVE}",
    re.IGNORECASE,
)
# "Score 4" alone on its line, on two lines as below a heading, or in a table row with two cells.
BARE = re.compile(
    rf"^[ \t#*_|\-]{{0,8}}(?P<final>{FINAL})?{NOUN}(?:[ \t*_]{{1,8}}|{MARK}(?:\||\n[ \t\n]{{0,8}}){MARK})"
    rf"(?P<number>{ANY_NUMBER}){STOP}{MARK}",
    re.IGNORECASE | re.MULTILINE,
)
# "4/5" or "4 stars" alone on its line, and a number that is the complete text.
LONE = re.compile(
    rf"^[ \t#*_]{{0,8}}(?P<number>[+\-−]?{NUMBER}){MARK}(?={languages.OUT_OF}|{languages.STARS})",
    re.IGNORECASE | re.MULTILINE,
)
BOX = re.compile(
    rf"^(?:[ \t#*_$]|\\?[\[(]){{0,8}}(?:\\boxed[ \t]?\{{[ \t]?(?:(?:{FINAL})?{NOUN}[ \t]?[:=]?[ \t]?)?|\[\[)"
    rf"(?P<number>{ANY_NUMBER}){STOP}(?=(?:[ \t]?/[ \t]?[0-9]{{1,4}})?[ \t]?(?:\}}|\]\]))(?:\}}|\]\])?"
    r"(?:[ \t$*_]|\\?[\])]){0,8}",
    re.IGNORECASE | re.MULTILINE,
)
WHOLE = re.compile(rf"[\s#*_{BLANK}]*+(?P<number>[+\-−]?{NUMBER}){STOP}{MARK}(?=[^\n]*\s*\Z)")
SUM = re.compile(rf"{MARK}(?P<addends>(?:\+{MARK}{NUMBER}{MARK}){{1,24}})={MARK}(?P<sum>{NUMBER}){MARK}")
TOTAL = re.compile(
    rf"(?:{UNIT})?{MARK}"
    rf"(?:(?:[,;–—-][ \t]|[(\[])(?:(?:which|that)[ \t]is,?[ \t]|i\.e\.,?[ \t])?(?:(?P<again>{NUMBER}){MARK})?)?"
    rf"{languages.OUT_OF}[为是:]?[ \t]{{0,8}}(?:(?:an?|the)[ \t])?"
    r"(?:(?:possible|maximum|total|un m[áa]ximo|möglichen|maximal|возможных)[ \t](?:(?:of|de|von)[ \t])?)?"
    rf"{MARK}(?P<total>{ANY_NUMBER}){STOP}(?:[ \t]?(?:{UNIT}|possible\b))?[)\]}}]{{0,2}}\$?{MARK}",
    re.IGNORECASE,
)
CJK_TOTAL = re.compile(languages.TOTAL_AFTER)
SCALE = re.compile(
    r"(?:[(,]?[ \t]?(?:on|in|using)[ \t](?:a|the)[ \t](?:scale[ \t](?:of|from)[ \t])?"
    r"|[.,]?[ \t]{1,2}(?:it|which|the[ \t]scale)[ \t](?:goes|ranges|runs)[ \t]from[ \t])"
    rf"(?:(?P<least>{NUMBER})[ \t]?(?:-|–|to)[ \t]?)?(?P<most>{NUMBER})(?:[ \t-](?:points?[ \t-])?scale)?\)?{MARK}",
    re.IGNORECASE,
)
PER_CENT = re.compile(rf"(?:%|per[ ]?cent\b){MARK}", re.IGNORECASE)
# "4-5", "4, minus 1", "5 (relevance), 3 (style)".
RANGE = re.compile(
    rf"(?:[-–—,~〜&+/]|to\b|(?:,[ \t])?(?:or|minus|plus|less)\b|and\b){MARK}[0-9]"
    rf"|\([^()\n]{{0,80}}\){MARK}(?:[,;/&+]|and\b)?{MARK}[0-9]",
    re.IGNORECASE,
)
CHANGED = re.compile(
    rf"[,;(–—-]?{MARK}(?:(?:then|later|now|but)[ \t])?{CHANGE}{TO}[ \t](?P<to>{NUMBER})", re.IGNORECASE
)
POINTS = re.compile(rf"{UNIT}{languages.COPULA}{MARK}", re.IGNORECASE)
LINE_ENDS = re.compile(r"[ \t]*\.?[ \t*_]*(?:\|[ \t]*)?(?:\n|\Z)")
# The beginning of a verdict in a truncated text.
OPENING = re.compile(
    rf"[ \t#*_\-]{{0,8}}(?:(?:the|my)[ \t])?(?:{FINAL}|{NOUN}\b"
    r"|(?:final|total|overall|fi|fin|fina|to|tot|tota|sc|sco|scor)\Z"
    rf"|{languages.NOUN}(?![^\W_])|{languages.CJK_NAME})",
    re.IGNORECASE,
)

OF_RESPONSE = re.compile(OBJECT, re.IGNORECASE)
POINTS_GIVEN = re.compile(rf"(?:{ANY_NUMBER}|another|an?)[ \t]?{UNIT}", re.IGNORECASE)

# Statements of the requested form, sentences, and those that have no other text on their lines.
FORMAL = (HEAD, FOREIGN_HEAD, CJK_HEAD, RESULT, BARE)
SENTENCES = (SENTENCE, FOREIGN_SENTENCE, CJK_SENTENCE, CJK_OF_TOTAL)
NEVER_IN_ASCII = frozenset({CJK_HEAD, CJK_SENTENCE, CJK_OF_TOTAL})
ALONE = (BARE, LONE, BOX, WHOLE)
