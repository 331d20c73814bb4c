"""Detection of text about another text than the judged one: an improved, ideal or imagined response, or a condition.

A judge that rewrites the response, or says what a perfect one would get, often grades that text too, in the same form.
Known words find the labels of such texts; where the words are unknown, any label between two different scores counts.
"""

import re

_TEXT = (
    r"(?:response|answer|version|reply|text|rewrite|draft|output|solution|essay|story|poem|summary|one"
    r"|antwort|fassung|réponse|version|respuesta|versión|resposta|versão|risposta|versione|ответ|вариант|antwoord"
    r"|versie"
    r"|odpowied[zź]|wersja)"
)
_BETTER = (
    r"(?:improved|better|revised|rewritten|reworked|corrected|enhanced|edited|updated|polished|refined|expanded"
    r"|stronger|ideal|perfect|optimal|model|exemplary|sample|example|hypothetical|imagined?|alternative|suggested"
    r"|proposed|higher-scoring|top-scoring|full-marks?|5-point|five-point"
    r"|verbesserte|bessere|beste|ideale|perfekte|überarbeitete|korrigierte|vorbildliche|umgeschriebene|neue"
    r"|améliorée?|meilleure?|idéale?|parfaite?|révisée?|corrigée?|réécrite|mejorada|mejor|ideal|perfecta|revisada"
    r"|corregida|reescrita|melhorada|melhor|perfeita|corrigida|migliorata|migliore|perfetta|riveduta|corretta"
    r"|riscritta|улучшенн\w+|лучший|идеальн\w+|исправленн\w+|переписанн\w+|verbeterde|betere|perfecte|herziene"
    r"|poprawion\w+|lepsza|idealna)"
)
# "An excellent answer:" is a label; in a sentence it is praise of the response.
_PRAISED = (
    rf"(?:(?:an?|the|what|example of|examples of)[ \t]){{0,3}}(?:new|good|great|best|excellent|strong|high-quality"
    rf"|(?:more|most)[ \t][a-z]{{3,16}})[ \t]{_TEXT}(?:[ \t](?:would|could|might|looks?|reads?)\b[^\n:.!?]{{0,60}})?"
)
_CJK = (
    r"(?:改进|改進|改善|改良|改写|改寫|修改|修订|修正|优化|優化|更好|更佳|理想|完美|示例|范例|範例|参考|參考|模範"
    r"|書き直し"
    r"|より良い|完璧|개선|수정|이상적|완벽|모범|예시)[^\n:。.]{0,6}?(?:回答|回复|答案|版本|版|响应|応答|返答|解答"
    r"|回答例|응답|답변|버전)"
)
_OTHER = (
    rf"(?:\b{_BETTER},?[ \t](?:\w[\w-]{{0,16}}[ \t]){{0,2}}{_TEXT}\b|\b{_TEXT}[ \t](?:\w{{1,12}}[ \t])?{_BETTER}\b"
    rf"|(?<!be )\b(?:rewrite|rewritten|rewriting|reworked|revision|improved|improvement on it|überarbeitet|réécriture"
    rf"|reescritura|reescrita|riscrittura|переписано)\b"
    rf"|\bfor comparison\b|{_CJK})"
)
# "Suggestions for a better response:" introduces remarks, not a text.
_REMARKS = r"(?:(?:the|some|my)[ \t])?(?:suggestions?|improvements?|ways?|tips?|changes?|steps?|areas?|what|why|room)\b"
# "Improved response:", "**Rewritten:**", "### A perfect answer"; and "Now for response B".
_LABEL = re.compile(
    rf"^[ \t#*_>•\-–—\[(]{{0,8}}(?:[0-9]{{1,2}}[.)][ \t])?(?!{_REMARKS})"
    r"(?=[^\n:.!?]{1,120}(?::|[.!]?[ \t*_\])]{0,8}$))"
    rf"(?:{_PRAISED}(?::|[ \t*_\])]{{0,8}}$)|(?=[^\n:.!?]{{0,100}}?{_OTHER})(?:[^\n:.!?]{{1,120}}:|#"
    rf"|[^\n:.!?]{{1,60}}[*_\])]{{0,8}}$|here\b|this is\b)"
    r"|(?:now|next|then|on),?[ \t](?:for|to|on to|let us|let's|we|i|the|response|turning)\b[^\n:.!?]{0,40}?"
    r"\b(?:response|answer|candidate)[ \t](?-i:[A-Z0-9])\b)",
    re.IGNORECASE | re.MULTILINE,
)
# "(for the improved version)" after a number.
OF_ANOTHER_TEXT = rf"(?:(?:for|of|once|after|in|as)[ \t](?:(?:the|an?|my|this|these|those)[ \t])?)?{_OTHER}"
_WOULD = r"(?<!\bI )(?<!\bwe )\b(?:would|could|might)\b"
_CONDITION = re.compile(
    rf"\b(?:if|had|were|assuming|with|given|once|after|adding)\b[^.!?\n]{{0,160}}{_WOULD}|\b(?:would|could"
    rf"|might) have\b"
    rf"|\b(?:suppose|supposing|imagine)\b|\bif (?:it|this|the|only)\b|\bfor comparison\b"
    rf"|\b(?:best|{_BETTER})[ \t](?:\w{{1,16}}[ \t]){{0,2}}{_TEXT}\b"
    r"|\b(?:it|this|that|which)(?: would|'d) (?:be|get|earn|score|receive|deserve|merit)\b"
    r"|如果|假如|要是|倘若|もし|であれば|だったら|만약|다면|라면|\b(?:wäre|hätte|würde)\b"
    r"|\b(?:aurait|serait|fuera|hubiera|tuviera|tivesse|fosse|avesse|sarebbe|seria|sería)\b|\bбы\b"
    rf"|{_CJK}",
    re.IGNORECASE,
)
# Labels of the judge's own explanation or correction; every other label may be another text's.
_OWN = (
    r"(?:justification|explanation|reason(?:s|ing)?|rationale|feedback|comments?|remarks?|notes?|analysis|correction"
    r"|corrected|revised|final|overall|total|conclusion|summary|verdict|update|reconsideration|on reflection"
    r"|my (?:\w+ )?(?:verdict|score|grade|rating)|理由|解释|说明|更正|总结|结论|begründung|korrektur|raison"
    r"|justificación"
    r"|corrección|обоснование|исправление)"
)
_ANY_LABEL = re.compile(
    rf"^[ \t#*_>•\-–—\[(]{{0,8}}(?!{_OWN}\b)[^\W\d][^\n:.!?]{{0,60}}(?::[ \t*_]{{0,8}}(?![ \t*_]*[0-9])|[ \t]{{0,4}}$)"
    rf"|^[ \t]{{0,3}}#{{1,6}}[ \t]{{1,4}}[*_]{{0,3}}(?!{_OWN}\b)\w",
    re.IGNORECASE | re.MULTILINE,
)


def first_label_of_another_text(text: str) -> int:
    """Return the position of the first label that introduces another text; the length of `text` if there is none."""
    found = _LABEL.search(text)
    return found.start() if found else len(text)


def is_hypothetical(text: str, start: int, end: int) -> bool:
    """Whether the passage has a condition, or names a better or imagined text."""
    return _CONDITION.search(text, start, end) is not None


def has_label(text: str, start: int, end: int) -> bool:
    """Whether a line of the passage is, or begins with, a label that is not of the judge's own explanation."""
    return _ANY_LABEL.search(text, start, end) is not None
