"""What judges call a score, its unit and its total in the languages that they write, as patterns.

Words alone never make a verdict: they stand where `Score`, `points` and `out of` stand, and the same rules apply. CJK
text has no spaces between words, so its words are separate patterns without word boundaries.
"""

# English words are in the readers. A noun that also has another meaning ("Note") only counts before a number.
NOUN = (
    r"(?:punktzahl|gesamtpunktzahl|bewertung|gesamtbewertung|endbewertung|note|gesamtnote|endnote|gesamtpunkte|punkte"
    r"|évaluation|puntuación|puntuacion|puntaje|calificación|calificacion|valoración|nota|pontuação|pontuacao"
    r"|avaliação|classificação|punteggio|voto|valutazione|оценка|балл|баллы|баллов|оцінка|бал|ocena|punktacja"
    r"|beoordeling|cijfer|betyg|poäng|karakter|hodnocení|skóre|puan|skor|nilai|điểm|điểm số|الدرجة|التقييم|النتيجة"
    r"|स्कोर|अंक|score|rating)"
)
BEFORE_NOUN = (
    r"(?:(?:die|der|das|meine|le|la|ma|mi|il|mio|mia|el|o|a|as|minha|мой|моя|de|mijn)[ \t])?"
    r"(?P<final>(?:endgültige|finale|abschließende|итоговая|итоговый|общая|общий|финальная|eindelijke|totale|toplam"
    r"|tổng|ostateczna|končné)[ \t])?"
)
AFTER_NOUN = (
    r"(?P<late>[ \t](?:finale?|totale?|globale?|générale?|general|geral|complessivo|complessiva|akhir|cuối cùng))?"
    r"(?:[ \t](?:der|für|de|pour|di|per|para|da)[ \t][^\W\d]\w{0,12}(?:[ \t][^\W\d]\w{0,16}){0,2})?"
)
IS = r"(?:[ \t](?:ist|beträgt|lautet|est(?:[ \t]de)?|es(?:[ \t]de)?|é(?:[ \t]de)?|è(?:[ \t]di)?|это|is|là)[ \t]{1,2})"

CJK = r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
_CJK_WHOSE = (
    r"(?:(?:(?:[这這该該此本]|我对[这该此])[个個篇条條]?|この|その|이[ \t]?)?"
    r"(?:回答|回复|回覆|答案|响应|応答|返答|응답|답변|我|私|나)(?:的|の|의[ \t]?)?(?:[ \t]?給出的)?)?"
)
_CJK_FINAL = r"(?:(?:最终|最終|最后|总体|總體|综合|綜合|総合|整体|总|總|总的|최종|종합|전체|총)[ \t]?(?:的[ \t]?)?)"
CJK_NOUN = (
    r"(?:评分|評分|得分|分数|分數|总分|總分|打分|评级|評級|评价|評價|評価|評点|スコア|点数|點數|得点|採点|合計点"
    r"|(?:평가[ \t]?)?점수|평점|총점|평가|스코어)"
)
CJK_NAME = rf"{_CJK_WHOSE}(?:{_CJK_FINAL})?{CJK_NOUN}(?:结果|結果)?"
CJK_HEAD = CJK_NAME.replace("(?:" + _CJK_FINAL, "(?P<final>" + _CJK_FINAL)
CJK_IS = r"[ \t]?(?:应该是|应为|应是|為|为|是|は|が|은|는)"

# Units after a number. "4分钟" is a time, and the mark of the unit is the end of its word.
CJK_UNIT = r"(?:[分点點](?![钟鐘之半心])|점|星|颗星|つ星)"
UNIT = (
    rf"(?:(?:points?|pts?|stars?|punkten?|sternen?|étoiles?|puntos?|estrellas?|pontos?|estrelas?|punt[oi]|stell[ae]"
    rf"|балл(?:а|ов|ы)?|балів|бал[иа]?|punten|poäng|puan|điểm|poin)(?![^\W_])|{CJK_UNIT})"
)
OUT_OF = (
    r"(?:/|(?:out[ \t])?of[ \t]|(?:von|sur|de|sobre|su|di|из|з|van|av|dari|z|trên|üzerinden)[ \t]"
    r"|满分|滿分|満点)"
)
# "5点満点中4点", "5점 만점에 4점", "满分5分，得4分", "5分中得4分": the total before the number.
_BEFORE = (
    r"[ \t]?(?:点満点(?:中|で|のうち)?,?|点(?:中|のうち),?|점[ \t]?만점[ \t]?(?:에서|에|중에?)?|점[ \t]?중에?"
    r"|分(?:满分|滿分|制|中)[中里]?,?)[ \t]?(?:得|评|評|给|給)?[ \t]?"
)
_FULL = r"(?:满分|滿分)(?:为|為|是)?[ \t]?"
_OF_FULL = r"[ \t]?分?(?:,[ \t]?|[中里],?[ \t]?)(?:得|评|評|给|給)?[ \t]?"
TOTAL_BEFORE = rf"(?:(?P<before>[0-9]{{1,4}}){_BEFORE}(?=[0-9])|{_FULL}(?P<full>[0-9]{{1,4}}){_OF_FULL})?"
# "この回答は5点満点中4点です。": a sentence whose number has the total before it.
OF_TOTAL = (
    rf"{_CJK_WHOSE}(?:(?:は|が|은|는|이|가)[ \t]?)?(?=[0-9]{{1,4}}{_BEFORE}[0-9]|{_FULL}[0-9]{{1,4}}{_OF_FULL}[0-9])"
)
# "我给这个回答4分", "因此给4分", "4点を与えます": a closing sentence.
GIVES = (
    r"(?:我(?:会|將|将|想|愿意)?[给給打评](?:出|予)?(?:[这這该此][个個篇]?)?(?:回答|回复|答案|它|其)?[打评]?了?"
    r"|[这這该此本][个個篇]?(?:回答|回复|答案)(?:应|可以?)?(?:得|获得|值))"
)
CONDITION = (
    r"(?:如果|若|假如|要是|倘若|除非|前提|もし|만약|wenn\b|falls\b|sofern\b|es sei denn|si\b|se\b|если\b|als\b|mits\b"
    r"|jeśli\b|eğer\b|nếu\b|à condition)"
)
# "例があれば、", "예시가 있다면,": a condition that ends its clause.
NO_CONDITION_BEFORE = "".join(f"(?<!{ending})" for ending in ("ば", "たら", "なら", "면", "的话", "的話"))
BECAUSE = (
    r"(?:因为|因為|由于|なぜなら|왜냐하면|weil\b|da\b|denn\b|car\b|parce\b|porque\b|ya que\b|perché\b|потому\b"
    r"|так как\b)"
)
LEAD_IN = (
    r"(?:因此|所以|综上(?:所述)?|綜上(?:所述)?|总之|總之|总的来说|总体(?:而言|来说|来看)|综合(?:来看|考虑|以上)|最终|故"
    r"|よって|したがって|従って|以上より|総合的に|따라서|그러므로|종합하면|결론적으로"
    r"|daher|deshalb|insgesamt|somit|also|abschließend|donc|ainsi|par conséquent|en conclusion|en résumé|globalement"
    r"|por lo tanto|por tanto|en resumen|en conclusión|en general|portanto|em resumo|em conclusão|no geral|assim"
    r"|quindi|pertanto|in sintesi|in conclusione|nel complesso|поэтому|итак|таким образом|в целом|dus|daarom|kortom),?"
)
TURN = (
    r"(?:更正|修正|订正|訂正|不过|但是|然而|重新考虑|しかし|ただし|정정|하지만|그러나|korrektur|jedoch|allerdings|doch"
    r"|cependant|toutefois|corrección|sin embargo|no obstante|correção|no entanto|porém|correzione|tuttavia"
    r"|исправление|однако)"
)
I_GIVE = (
    r"(?:ich (?:gebe|vergebe|bewerte|würde)|je (?:lui )?(?:attribue|accorde|donne|donnerais|mets)|j['’](?:attribue"
    r"|accorde|évalue)"
    r"|(?:yo )?le (?:doy|asigno|otorgo)|(?:eu )?(?:dou|atribuo)|(?:io )?(?:assegno|attribuisco|do)|я (?:ставлю|даю"
    r"|оцениваю))"
)
INFINITIVE = r"(?:(?:ver)?geben|bewerten)\b"  # "Ich würde 4 von 5 Punkten geben."
STARS = r"(?:stars?\b|sterne\b|étoiles\b|estrellas\b|estrelas\b|stelle\b|звезд|颗星|星|つ星)"
COPULA = (
    r"(?:です|でした|とします|とする|である|だ|を(?:与え|付け|つけ)(?:ます|る)|と(?:評価|採点|判断)(?:します|しました|する|した)"
    r"|입니다|이다|(?:을|으로)[ \t]?(?:주겠습니다|줍니다|드립니다|부여합니다|평가합니다|채점합니다))?"
)
# "4点（5点満点）", "4점 (5점 만점)", "4分（5分制）": the total after the number.
TOTAL_AFTER = (
    rf"(?:{UNIT})?[ \t]?[(\[,][ \t]?(?P<total>[0-9]{{1,4}})[ \t]?(?:点満点(?:中)?|점[ \t]?만점(?:[ \t]?(?:기준|중))?"
    r"|分(?:满分|滿分|制))(?:[)\]]|(?=[ \t.]*(?:\n|\Z)))[ \t]{0,4}"
    rf"{COPULA}"
)

# Of comparisons. The two things that are compared, by what they are called in English.
THINGS = {
    "response": (
        r"antwort|réponse|reponse|respuesta|resposta|risposta|ответ|відповідь|antwoord|odpowiedź|svar|yanıt|jawaban",
        r"回答|回复|回覆|答案|响应|回應|応答|返答|응답|답변|대답",
    ),
    "judgment": (
        r"urteil|beurteilung|jugement|juicio|julgamento|giudizio|оценка|суждение|oordeel",
        r"判断|判斷|评判|評判|评价|評価|判定|판단|판정|평가",
    ),
}
BETTER = (
    r"(?:bessere|beste|meilleure?|mejor|melhor|migliore|лучший|лучшая|кращий|betere|lepsza|bättre|bedre"
    r"|überlegene|bevorzugte|préférée?|preferida)"
)
IS_BETTER = (
    r"(?:ist (?:klar |deutlich |insgesamt |etwas )?(?:besser|die bessere)|est (?:clairement "
    r"|nettement )?(?:la )?meilleure?"
    r"|es (?:claramente |la )?mejor|é (?:claramente |a )?melhor|è (?:chiaramente |la )?(?:migliore|meglio)|лучше"
    r"|является лучшим"
    r"|is (?:duidelijk )?beter|jest lepsza)"
)
THAN = r"(?:als|que|di|чем|dan|niż|del?|da|do)"
WINNER = (
    r"(?:gewinner|sieger|gagnant|vainqueur|ganador|ganadora|vencedor|vencedora|vincitore|vincitrice|победитель|winnaar"
    r"|fazit|urteil|verdict|veredicto|veredito|verdetto|вердикт|endurteil|entscheidung|décision|decisión|decisão)"
)
TIE = (
    r"(?:unentschieden|égalité|ex aequo|empate|pareggio|parità|ничья|gelijkspel|remis"
    r"|beide (?:antworten )?(?:sind )?gleich gut|平局|打平|平手|不相上下|[同一]样好|一樣好|难分伯仲|相当|引き分け|同等"
    r"|どちらも同じ|무승부|동등|비슷)"
)
CJK_BETTER = (
    r"(?:更好|更佳|较好|較好|更优秀?|更優秀?|最好|最佳|优胜|優勝|获胜|獲勝|胜出|胜一筹|更胜一筹|略胜一筹|优于|優於"
    r"|好于)"
)
CJK_BETTER_THING = (
    r"(?:更好|更佳|较好|較好|更优秀?|最好|最佳|更优|优胜|获胜|より良い|より優れた|優れている|優れた|良い方の|最良の"
    r"|더[ \t]?나은|더[ \t]?좋은|더[ \t]?우수한|우수한)[ \t]?(?:的[ \t]?|一[个個]的?)?"
)
CJK_WINNER = (
    r"(?:胜者|勝者|胜出者|优胜者|获胜者|赢家|승자|승리자"
    r"|(?:最终|最終|我的|최종)?[ \t]?(?:判断|选择|選擇|结论|結論|裁决|判定|判决|决定|선택|결론|판정|評価結果))"
)
CJK_VERY = r"(?:(?:明显|明顯|整体上?|整體上?|总体上?|综合|显然|略微?|稍微?|稍|要|会|則|则|的(?:质量|表现))){0,3}"
JA_KO_BETTER = (
    r"(?:の(?:方|ほう))?[がは](?:より)?(?:良い|いい|優れて(?:いる|います)|優秀)(?:です|と(?:思|考え"
    r"|判断し)[^\n。.]{0,6})?"
    r"|(?:이|가|은|는)?[ \t]?더[ \t]?(?:낫습니다|좋습니다|낫다|좋다|우수합니다|뛰어납니다|나은[ \t]응답입니다)"
)
CJK_CHOOSE = r"我(?:会|將|将|想|更)?(?:选择|選擇|选|喜欢|偏好|倾向于|认为|支持)"
