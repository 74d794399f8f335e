"""Labelled hypotheses, English and Mandarin: of which hallucinations they hold, or of none.

They are made by rules that know nothing of the detectors: sentences from lists, recognition errors
drawn at random, and into some of them what a decoder makes up.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from audiorl.text.normalise import normal_units

NORMALIZER = {"en": "english", "zh": "mandarin"}
# The same sentences in each language, so that one can stand for a translation of another.
SENTENCES = {
    "en": """we have to bring the children home before the storm
the doctor is not in the house this morning
please tell me how much the train to the mountains costs
my brother wants to buy a new bicycle for the summer
there was a long letter from the bank on the table
they are painting the kitchen and the small room next to it
can you explain what happened with the money yesterday
the old bridge over the river is closed for three weeks
I have never seen such a beautiful garden in my life
when the rain stops we will walk to the market
nobody knows why the lights went out during the concert
she reads the newspaper while he prepares the coffee""",
    "zh": """暴风雨来之前我们得把孩子们带回家
医生今天早上不在家里
请告诉我去山里的火车票多少钱
我哥哥想为夏天买一辆新自行车
桌子上有一封银行寄来的长信
他们正在粉刷厨房和旁边的小房间
你能解释一下昨天的钱是怎么回事吗
河上的那座老桥要关闭三个星期
我这辈子从来没有见过这么漂亮的花园
等雨停了我们就走路去市场
没有人知道音乐会的时候灯为什么灭了
她看报纸的时候他在准备咖啡""",
    "de": """wir müssen die kinder vor dem sturm nach hause bringen
der arzt ist heute morgen nicht im haus
bitte sagen sie mir was der zug in die berge kostet
mein bruder will für den sommer ein neues fahrrad kaufen
auf dem tisch lag ein langer brief von der bank
sie streichen die küche und das kleine zimmer daneben
können sie erklären was gestern mit dem geld passiert ist
die alte brücke über den fluss ist für drei wochen gesperrt
ich habe noch nie einen so schönen garten gesehen
wenn der regen aufhört gehen wir zu fuß auf den markt
niemand weiß warum das licht bei dem konzert ausging
sie liest die zeitung und er bereitet den kaffee zu""",
    "fr": """nous devons ramener les enfants à la maison avant la tempête
le médecin n'est pas à la maison ce matin
dites-moi s'il vous plaît combien coûte le train pour la montagne
mon frère veut acheter un nouveau vélo pour l'été
il y avait une longue lettre de la banque sur la table
ils peignent la cuisine et la petite pièce à côté
pouvez-vous expliquer ce qui s'est passé hier avec l'argent
le vieux pont sur la rivière est fermé pour trois semaines
je n'ai jamais vu un aussi beau jardin de ma vie
quand la pluie s'arrêtera nous irons au marché à pied
personne ne sait pourquoi la lumière s'est éteinte pendant le concert
elle lit le journal pendant qu'il prépare le café""",
    "es": """tenemos que llevar a los niños a casa antes de la tormenta
el médico no está en casa esta mañana
por favor dígame cuánto cuesta el tren a las montañas
mi hermano quiere comprar una bicicleta nueva para el verano
había una carta larga del banco en la mesa
están pintando la cocina y el cuarto pequeño de al lado
puede explicar lo que pasó ayer con el dinero
el viejo puente sobre el río está cerrado por tres semanas
nunca he visto un jardín tan bonito en mi vida
cuando pare de llover iremos andando al mercado
nadie sabe por qué se apagaron las luces durante el concierto
ella lee el periódico mientras él prepara el café""",
}
SENTENCES = {language: lines.splitlines() for language, lines in SENTENCES.items()}
CODE_SWITCHED = [
    "请打开 bluetooth 和 wifi",
    "他在 google 上班",
    "这个 app 不好用",
    "用 python 写一个 demo",
]
# Speakers do repeat themselves, and names are foreign.
REPEATED = {
    "en": ["no no no no no do not touch it", "dial five five five five two two now"],
    "zh": ["不不不不不我不去", "号码是五五五五二二二二", "哈哈哈哈哈真好笑"],
}
NAMED = {"en": ["he met la señora de los santos in paris"], "zh": ["我在 kfc 等你"]}


@dataclass(frozen=True)
class Case:
    """One hypothesis; `kinds`: what must be found, `maybe`: what may be, nothing else."""

    language: str
    ref: str
    hyp: str
    seconds: float
    kinds: frozenset[str] = frozenset()
    maybe: frozenset[str] = frozenset()


class Maker:
    """Draws cases of one language."""

    def __init__(self, language: str, seed: int) -> None:
        self.language = language
        self.draw = random.Random(f"{language}{seed}")

    def units(self, text: str) -> list[str]:
        return list(normal_units(text, NORMALIZER[self.language], "mixed"))

    def join(self, units: list[str]) -> str:
        return " ".join(units)

    def sentence(self, count: int = 1) -> list[str]:
        lines = self.draw.sample(SENTENCES[self.language], count)
        return [unit for line in lines for unit in self.units(line)]

    def recognised(self, units: list[str], rate: float) -> list[str]:
        """With errors of a recogniser: mostly substitutions, never many insertions in a row."""
        vocabulary = self.sentence(8)
        heard = []
        for unit in units:
            chance = self.draw.random() / rate if rate else 1.0
            if chance < 0.6:
                heard.append(self.draw.choice(vocabulary))
            elif chance < 0.8:
                continue
            elif chance < 1.0:
                heard += [unit, self.draw.choice(vocabulary)]
            else:
                heard.append(unit)
        return heard

    def case(self, ref: list[str], hyp: list[str], kinds: str = "", maybe: str = "") -> Case:
        seconds = len(ref) / self.draw.uniform(2.0, 7.5)
        kinds, maybe = (frozenset(names.split()) for names in (kinds, maybe))
        return Case(self.language, self.join(ref), self.join(hyp), seconds, kinds, maybe)

    def clean(self) -> Case:
        """Right, or with up to 60 % errors."""
        ref = self.sentence(self.draw.randint(1, 4))
        return self.case(ref, self.recognised(ref, self.draw.choice([0, 0.1, 0.2, 0.4, 0.6])))

    def misheard(self) -> Case:
        """About as long as what was said, in its language, and all wrong; or half of it missing."""
        ref, other = self.sentence(2), self.sentence(3)
        return self.case(ref, self.draw.choice([other[: len(ref)], ref[len(ref) // 2 :]]))

    def repeated_by_speaker(self) -> Case:
        """A loop that was said, recognised or misheard throughout."""
        ref = self.units(self.draw.choice(REPEATED[self.language])) + self.sentence()
        misheard = self.draw.choice([ref[0], "know" if self.language == "en" else "部"])
        return self.case(ref, [misheard if unit == ref[0] else unit for unit in ref])

    def stuttered(self) -> Case:
        """A phrase twice or a word three times: an error, but no loop."""
        ref = self.sentence(2)
        at, n = self.draw.randrange(len(ref) - 3), self.draw.choice([1, 2])
        return self.case(ref, ref[: at + n] + ref[at : at + n] * (3 - n) + ref[at + n :])

    def switched(self) -> Case:
        """Words of another language that are in the reference, too, or a single one."""
        lines = NAMED["en"] if self.language == "en" else CODE_SWITCHED + NAMED["zh"]
        ref = self.units(self.draw.choice(lines)) + self.sentence()
        return self.case(ref, self.recognised(ref, 0.2))

    def silent(self) -> Case:
        return Case(self.language, "", "", self.draw.uniform(1, 9))

    def loop(self) -> Case:
        """Falls into a loop of one to twelve units somewhere, often until it is cut off."""
        ref = self.sentence(self.draw.randint(1, 3))
        start = self.recognised(ref[: self.draw.randrange(1, len(ref))], 0.15)
        phrase = self.sentence()[: self.draw.randint(1, 12)]
        looped = phrase * self.draw.randint(4, 30) + phrase[: self.draw.randrange(len(phrase))]
        maybe = "compression burst beyond_audio overlong"
        return self.case(ref, start + looped, "loop", maybe)

    def unsteady_loop(self) -> Case:
        """A loop in which a unit changes now and then."""
        ref, phrase = self.sentence(), self.sentence()[: self.draw.randint(1, 6)]
        looped = self.recognised(phrase * self.draw.randint(10, 30), 0.05)
        maybe = "compression burst beyond_audio overlong"
        return self.case(ref, ref + looped, "loop", maybe)

    def stutter(self) -> Case:
        """A loop inside one word, as of tokens without spaces."""
        ref = self.sentence()
        syllable = self.draw.choice(["to", "so", "ha", "ing", "na", "ther"])
        word = syllable * self.draw.randint(7, 40)
        at = self.draw.randrange(len(ref))
        return self.case(ref, [*ref[:at], word, *ref[at:]], "loop", "compression foreign")

    def recitation(self) -> Case:
        """A long passage again and again."""
        ref = self.sentence()
        passage = self.sentence(4)[: self.draw.randint(24, 40)]
        looped = passage * self.draw.randint(6, 12)
        return self.case(ref, ref + looped, "compression", "loop burst beyond_audio overlong")

    def burst(self) -> Case:
        """A clause that nobody said, within what is well recognised."""
        ref, other = self.sentence(3), self.sentence(8)
        made_up = [unit for unit in other if unit not in ref][: self.draw.randint(5, 14)]
        at = self.draw.choice([0, len(ref) // 2, len(ref)])
        hyp = self.recognised(ref[:at], 0.1) + made_up + self.recognised(ref[at:], 0.1)
        return self.case(ref, hyp, "burst", "beyond_audio")

    def beyond_audio(self) -> Case:
        """More than anybody can say in the time, unlike the reference as a whole."""
        ref = self.sentence()[:4]
        seconds = len(ref) / self.draw.uniform(3.0, 5.0)
        hyp = self.sentence(3)
        while len(hyp) < 8.5 * seconds + 1:
            hyp += self.sentence()
        case = self.case(ref, hyp, "beyond_audio overlong", "burst")
        return Case(**{**vars(case), "seconds": seconds})

    def on_silence(self) -> Case:
        """Something said where nobody speaks, or signs alone."""
        hyp = self.sentence()[: self.draw.randint(1, 12)]
        hyp = self.draw.choice([hyp, hyp, hyp, [" "], ["..."], ["."] * 49])
        seconds = self.draw.uniform(1, 9)
        return Case(self.language, "", self.join(hyp), seconds, frozenset(["silence"]))

    def translated(self) -> Case:
        """The same in another language, wholly or from some point on."""
        languages = ["zh", "de", "fr", "es"] if self.language == "en" else ["en", "en", "de", "fr"]
        other, number = self.draw.choice(languages), self.draw.randrange(len(SENTENCES["en"]))
        ref = self.units(SENTENCES[self.language][number])
        kept = self.draw.choice([0, len(ref) // 2]) if "zh" in (self.language, other) else 0
        hyp = ref[:kept] + self.units(SENTENCES[other][number])
        return self.case(ref, hyp, "foreign", "burst overlong beyond_audio")


NEGATIVE = ("clean", "clean", "misheard", "repeated_by_speaker", "stuttered", "switched", "silent")
POSITIVE = ("loop", "unsteady_loop", "stutter", "recitation", "burst", "beyond_audio", "on_silence")
POSITIVE += ("translated", "translated")


def make_cases(per_kind: int = 30, seed: int = 1) -> list[Case]:
    """`per_kind` cases of each entry above in each language."""
    cases = []
    for language in NORMALIZER:
        maker = Maker(language, seed)
        makers: list[Callable[[], Case]] = [getattr(maker, kind) for kind in NEGATIVE + POSITIVE]
        cases += [make() for make in makers for _ in range(per_kind)]
    return cases
