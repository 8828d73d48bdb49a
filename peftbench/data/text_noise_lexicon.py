"""Words for the noise: what lies beside a key, what means the same, what is written in two ways."""

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def _neighbours() -> dict[str, str]:
    """Letters beside each letter, and above and below it, on a QWERTY keyboard."""
    found = {}
    for y, row in enumerate(_ROWS):
        for x, letter in enumerate(row):
            beside = row[max(0, x - 1) : x] + row[x + 1 : x + 2]
            above = _ROWS[y - 1][x : x + 2] if y > 0 else ""
            below = _ROWS[y + 1][max(0, x - 1) : x + 1] if y < 2 else ""
            found[letter] = beside + above + below
    return found


NEIGHBOURS = _neighbours()

#: A word, then words that may stand for it in most sentences (no WordNet: that is a download).
_SAME = """
accept/approve accepted/approved afraid/scared after/following again/anew agree/concur
agreed/concurred allow/permit allowed/permitted allows/permits also/too although/though
always/constantly amount/quantity ancient/old angry/furious announce/declare announced/declared
answer/reply answered/replied approximately/about/roughly area/region areas/regions arrive/come
arrived/came ask/request asked/requested attack/assault attacked/assaulted attacks/assaults
baby/infant beautiful/pretty because/since before/earlier began/started begin/start begins/starts
big/large book/volume boss/manager bottom/base boy/lad brave/courageous break/shatter
broke/shattered build/construct building/structure built/constructed business/enterprise
buy/purchase car/automobile careful/cautious cat/feline cats/felines center/middle
chance/opportunity child/kid children/kids choose/select chose/selected chosen/selected cities/towns
city/town claim/assert claimed/asserted claims/asserts clean/tidy clear/obvious close/shut
closed/shut cold/chilly common/ordinary companies/firms company/firm cook/prepare cooking/preparing
countries/nations country/nation court/tribunal crime/offense cut/slice cutting/slicing danger/peril
dangerous/hazardous decrease/decline decreased/declined denied/rejected deny/reject died/perished
different/distinct dirty/filthy doctor/physician dog/hound dogs/hounds drink/beverage
drinks/beverages dry/arid easy/simple eat/consume eating/consuming edge/border empty/vacant
end/finish ended/finished enough/sufficient expect/anticipate expected/anticipated
expects/anticipates fake/false false/untrue famous/renowned fear/dread final/last find/locate
first/initial fix/repair fixed/repaired food/nourishment found/located friend/pal friends/pals
full/packed funny/amusing game/match games/matches gave/provided get/obtain girl/lass give/provide
gives/provides got/obtained government/administration group/team groups/teams happy/glad
hard/difficult hate/detest healthy/fit help/assist/aid hidden/concealed hide/conceal hope/wish
hopes/wishes horse/steed hot/warm house/home however/nevertheless huge/enormous hurt/injured
idea/notion ideas/notions important/significant increase/rise increased/rose job/occupation
judge/magistrate jump/leap jumping/leaping jumps/leaps keep/retain kept/retained killed/slain
know/understand law/statute lawyer/attorney lawyers/attorneys learn/study leave/depart left/departed
letter/note like/enjoy likes/enjoys look/glance looking/glancing lose/forfeit loud/noisy love/adore
loves/adores lucky/fortunate made/created main/chief/principal make/create makes/creates
making/creating man/guy many/numerous market/marketplace maybe/perhaps meal/dinner method/approach
methods/approaches mistake/error mistakes/errors modern/contemporary money/cash movie/film
movies/films near/close nearly/almost need/require needed/required needs/requires new/recent
news/tidings number/figure often/frequently old/aged only/just open/unlock paper/document
part/portion parts/portions people/persons percent/percentage photo/photograph photos/photographs
picture/image pictures/images place/spot places/spots plan/scheme plans/schemes police/officers
poor/needy popular/well-liked predict/forecast predicted/forecast prevent/avert prevented/averted
price/cost prices/costs problem/issue problems/issues profit/gain profits/gains question/query
questions/queries quick/fast/rapid quickly/rapidly quiet/silent rare/scarce real/genuine
really/truly reason/cause reasons/causes receive/get received/got refuse/decline refused/declined
remain/stay remained/stayed remains/stays report/account reports/accounts result/outcome
results/outcomes return/comeback rich/wealthy right/correct risk/hazard rule/regulation
rules/regulations run/jog running/jogging sad/unhappy safe/secure said/stated same/identical
say/state says/states school/academy search/hunt searching/hunting sell/trade send/dispatch
sent/dispatched several/various shares/stocks show/display sick/ill sign/signal similar/alike
sleep/slumber sleeping/slumbering slicing/cutting slowly/gradually small/little smart/clever
song/tune speak/talk speaking/talking speaks/talks special/particular stock/share stop/halt
stopped/halted stops/halts story/tale strange/odd street/road strong/powerful student/pupil
students/pupils study/investigation suddenly/abruptly teach/instruct teacher/instructor tell/inform
test/exam tests/exams therefore/thus think/believe thinks/believes thought/believed throw/toss
throwing/tossing tiny/minuscule tired/weary together/jointly told/informed top/summit total/sum
tried/attempted trip/journey true/accurate try/attempt ugly/unattractive use/utilize used/utilized
uses/utilizes using/utilizing usually/normally vacation/holiday very/extremely victory/triumph
wait/await waiting/awaiting walk/stroll walking/strolling want/desire wanted/desired wants/desires
war/conflict watch/observe watched/observed watching/observing way/manner weak/feeble wet/damp
while/whilst whole/entire win/triumph woman/lady wounded/injured wrong/incorrect
"""

SYNONYMS = {word: tuple(others) for word, *others in (group.split("/") for group in _SAME.split())}

_NEGATED = "do does did is are was were has have had would could should"

_LONG = {
    "cannot": "can't",
    "can not": "can't",
    "will not": "won't",
    "i am": "i'm",
    "you are": "you're",
    "we are": "we're",
    "they are": "they're",
    "i have": "i've",
    "we have": "we've",
    "they have": "they've",
    "i will": "i'll",
    "you will": "you'll",
    "we will": "we'll",
    "they will": "they'll",
    "it is": "it's",
    "that is": "that's",
    "there is": "there's",
    "let us": "let's",
} | {f"{verb} not": f"{verb}n't" for verb in _NEGATED.split()}


def _contractions() -> dict[str, str]:
    """Long forms to short ones and back; also as treebanks break them (`do n't`)."""
    found = dict(_LONG)
    for long, short in _LONG.items():
        if long != "can not":
            found[short] = long
        place = short.find("n't") if "n't" in short else short.find("'")
        found[f"{short[:place]} {short[place:]}"] = long
    return found


CONTRACTIONS = _contractions()
