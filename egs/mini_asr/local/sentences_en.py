"""English: everyday requests and remarks, numbers and dates in words, rare names and brands."""

from __future__ import annotations

import re

import numpy as np
from sentences import Grammar, choose

ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen \
fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth \
thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth".split()
MONTHS = "january february march april may june july august september october november \
december".split()


def number(value: int) -> str:
    """`value` (0 to 999) in words: 342 is `three hundred forty two`."""
    if value < 20:
        return ONES[value]
    if value < 100:
        return TENS[value // 10 - 2] + (f" {ONES[value % 10]}" if value % 10 else "")
    return f"{ONES[value // 100]} hundred" + (f" {number(value % 100)}" if value % 100 else "")


def ordinal(value: int) -> str:
    """`value` (1 to 31) as an ordinal: 23 is `twenty third`."""
    if value <= 20:
        return ORDINALS[value - 1]
    return "thirtieth" if value == 30 else f"{TENS[value // 10 - 2]} {ORDINALS[value % 10 - 1]}"


def small_number(rng: np.random.Generator) -> str:
    return number(int(rng.integers(2, 13)))


def any_number(rng: np.random.Generator) -> str:
    return number(int(rng.integers(13, 100)))


def big_number(rng: np.random.Generator) -> str:
    return number(int(rng.integers(100, 1000)))


def digits(rng: np.random.Generator) -> str:
    return " ".join(ONES[d] for d in rng.integers(0, 10, size=rng.integers(3, 6)))


def clock(rng: np.random.Generator) -> str:
    hour = ONES[int(rng.integers(1, 13))]
    minutes = choose(rng, ["five", "ten", "fifteen", "twenty", "thirty", "forty five", "fifty"])
    return choose(
        rng, [f"{hour} {minutes}", f"half past {hour}", f"quarter to {hour}", f"{hour} sharp"]
    )


def date(rng: np.random.Generator) -> str:
    return f"{choose(rng, MONTHS)} {ordinal(int(rng.integers(1, 32)))}"


def polish(text: str) -> str:
    """`a` becomes `an` before a vowel."""
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


def words(text: str) -> list[str]:
    """A list from words parted by blanks; `_` stands for a blank inside an entry."""
    return [word.replace("_", " ") for word in text.split()]


SLOTS = {
    "small": small_number,
    "number": any_number,
    "big": big_number,
    "digits": digits,
    "clock": clock,
    "date": date,
    "month": MONTHS,
    "day": words("monday tuesday wednesday thursday friday saturday sunday"),
    "when": words(
        "today tomorrow tonight now later this_morning this_evening this_weekend next_week "
        "at_noon after_lunch before_dinner on_{day} next_{day} at_{clock} on_{date}"
    ),
    "often": words("always often never sometimes usually rarely"),
    "name": words(
        "anna peter maria john emma david sarah paul laura james julia mark alice robert helen "
        "thomas lucy daniel grace henry martin rose simon kate oliver nina george ella frank sofia"
    ),
    "relative": words(
        "mother father sister brother aunt uncle cousin grandmother boss neighbour teacher doctor "
        "friend wife husband son daughter manager"
    ),
    "who": words("{name} {name} my_{relative}"),
    "place": words(
        "london paris berlin madrid rome boston chicago dublin vienna oslo sydney toronto moscow "
        "cairo lisbon denver seattle austin prague athens"
    ),
    "spot": words(
        "airport station hospital library museum hotel bank post_office school office market "
        "park beach pharmacy bakery cinema theatre restaurant garage stadium"
    ),
    "side": words("corner end bridge church river traffic_light roundabout"),
    "turn": words("left right around"),
    "room": words(
        "kitchen bedroom bathroom living_room hallway garden garage office basement attic "
        "dining_room balcony"
    ),
    "device": words(
        "light lamp heater fan television radio oven camera speaker printer washing_machine "
        "coffee_machine alarm dishwasher computer"
    ),
    "thing": words("window door curtain gate blind roof shutter"),
    "colour": words("red green blue white yellow orange purple pink brown black grey"),
    "size": words("small large big little new old cheap heavy"),
    "food": words(
        "bread milk butter cheese eggs apples bananas tomatoes potatoes onions carrots rice pasta "
        "chicken fish sugar salt coffee tea juice honey chocolate cake soup salad lemons pepper "
        "flour yogurt mushrooms"
    ),
    "pack": words("bottles boxes bags packets cans pounds slices jars"),
    "dish": words("pizza soup pasta curry salad rice pancakes noodles chicken"),
    "object": words(
        "shoes shirt jacket hat umbrella book newspaper phone battery ticket towel blanket chair "
        "table mirror clock bicycle suitcase wallet key guitar camera notebook pencil gift cup"
    ),
    "genre": words("jazz rock pop classical folk country blues dance piano reggae metal opera"),
    "mood": words("happy sad quiet loud slow fast relaxing romantic old"),
    "weather": words("rain snow wind sunshine fog storms thunder ice clouds"),
    "climate": words("cold warm hot wet dry windy sunny cloudy foggy"),
    "event": words(
        "meeting lunch dinner party appointment interview concert wedding exam flight birthday "
        "lesson game class holiday conference"
    ),
    "task": words(
        "water_the_plants feed_the_cat walk_the_dog pay_the_rent call_the_bank buy_flowers "
        "clean_the_kitchen take_the_medicine wash_the_car book_a_table send_the_letter "
        "charge_the_phone empty_the_bin pick_up_the_children cook_dinner fix_the_bicycle "
        "return_the_books check_the_oven write_a_report visit_{who}"
    ),
    "vehicle": words("train bus plane car taxi boat tram ferry"),
    "animal": words("dog cat horse bird rabbit cow sheep duck mouse fox"),
    "action": words("playing sleeping working reading singing running waiting cooking eating"),
    "feeling": words("tired hungry thirsty happy busy late ready sick bored sorry"),
    "message": words(
        "i_am_late i_am_on_my_way dinner_is_ready the_{vehicle}_is_late see_you_{when} "
        "please_call_me_back happy_birthday i_need_help the_{event}_is_cancelled thank_you"
    ),
    "polite": ["please ", "could you ", "can you ", "", "", ""],
    "end": ["", "", "", " please", " again", " for me"],
    "quantity": ["some", "more", "no more", "{small} {pack} of", "a lot of"],
    "unit": words("minutes seconds hours"),
    "degree": words("degrees percent"),
}

TOPICS = {
    "home": [
        "{polite}turn on the {room} {device}{end}",
        "{polite}turn off the {device} in the {room}",
        "{polite}switch the {room} {device} off{end}",
        "{polite}open the {room} {thing}{end}",
        "close the {thing} in the {room}",
        "set the {room} to {number} {degree}",
        "make the {room} light {colour}",
        "is the {room} {thing} still open",
        "lock the {thing} at {clock}",
        "turn the {device} down to {number} percent",
    ],
    "time": [
        "{polite}set an alarm for {clock}",
        "wake me up {when} at {clock}",
        "set a timer for {number} {unit}",
        "cancel the alarm for {clock}",
        "remind me to {task} {when}",
        "remind {who} to {task}",
        "what is the date {when}",
        "how many days until {date}",
        "is {date} a {day}",
    ],
    "music": [
        "{polite}play some {mood} {genre} music",
        "play {genre} in the {room}",
        "skip the next {small} songs",
        "turn the volume up to {number}",
        "i {often} listen to {genre}",
        "stop the {mood} music {when}",
        "play the {genre} list from {month}",
    ],
    "travel": [
        "how far is it to {place}",
        "take me to the {spot}{end}",
        "find the nearest {spot} in {place}",
        "when does the {vehicle} to {place} leave",
        "book a {vehicle} from {place} to {place}",
        "the {vehicle} to {place} leaves at {clock}",
        "turn {turn} after the {side}",
        "drive to the {spot} near the {side}",
        "{who} goes to {place} by {vehicle}",
        "{vehicle} number {big} stops at the {spot}",
        "we arrive in {place} {when}",
    ],
    "messages": [
        "{polite}call {who} {when}",
        "send a message to {who}",
        "tell {who} that {message}",
        "text {who} and say {message}",
        "read the last {small} messages from {who}",
        "dial {digits}",
        "my number is {digits}",
        "the code for the {spot} is {digits}",
    ],
    "shopping": [
        "add {quantity} {food} to the list",
        "we need {quantity} {food} and {food}",
        "buy {food} {food} and {food}",
        "remove the {food} from the list",
        "how much is the {colour} {object}",
        "i want a {size} {colour} {object}",
        "the {object} costs {big} dollars",
        "order {dish} for {small} {when}",
        "where can i buy a {colour} {object}",
    ],
    "weather": [
        "will there be {weather} in {place} {when}",
        "what is the weather in {place} {when}",
        "it is {climate} and {climate} in {place}",
        "it was {number} degrees in {place}",
        "is it {climate} {when}",
        "there was {weather} and {weather} {when}",
        "bring a {object} because of the {weather}",
    ],
    "calendar": [
        "add a {event} with {who} {when}",
        "move the {event} to {date}",
        "when is the {event} with {who}",
        "cancel my {event} on {day}",
        "the {event} is on {date}",
        "the {event} starts at {clock}",
        "do i have a {event} {when}",
        "invite {who} and {who} to the {event}",
    ],
    "remarks": [
        "{name} is {action} in the {room}",
        "my {relative} has a {size} {colour} {animal}",
        "the {animal} is {action} in the {room}",
        "{who} is {feeling} and {feeling}",
        "{name} and {name} are {action}",
        "i am {often} {feeling} on {day}",
        "we {often} eat {dish} on {day}",
        "how do i cook {dish} with {food}",
        "{name} lost a {colour} {object} in {place}",
        "page {big} of the {size} book",
        "there are {number} people in the {room}",
        "{who} was born in {month}",
        "{number} plus {number}",
    ],
}

KEYWORD_TEMPLATES = [
    "{polite}call {person} {when}",
    "send a message to {person} {when}",
    "tell {person} that {message}",
    "{person} is {action} in the {room}",
    "add a {event} with {person} {when}",
    "invite {person} and {name} to the {event}",
    "my {relative} {person} is {feeling} {when}",
    "remind {person} to {task}",
    "how far is it from {place} to {town}",
    "take me to the {spot} in {town}",
    "what is the weather in {town} {when}",
    "the {vehicle} to {town} leaves at {clock}",
    "{person} goes to {town} by {vehicle}",
    "we arrive in {town} {when}",
    "order a {size} {colour} {brand} {object}",
    "how much is the {size} {brand} {device}",
    "turn on the {brand} {device} in the {room}",
    "{who} works for {brand} in {place}",
    "play the new {brand} song in the {room}",
    "where can i buy a {colour} {brand} {object}",
    "{person} bought a {colour} {brand} {object}",
]

# Tiers: `train` is heard rarely in training; `rl` first in RL; `test` in the test sets alone.
KEYWORDS = {
    "person": {
        "train": words(
            "octavia bartholomew fernanda leopold ingrid dmitri rosalind cornelius anneliese "
            "mortimer valentina horatio"
        ),
        "rl": words(
            "thaddeus guinevere alessandro wilhelmina percival magdalena casimir philippa "
            "balthazar henrietta"
        ),
        "test": words(
            "ignatius clementine rodrigo seraphina montgomery francesca lysander theodora "
            "maximilian arabella constantin beatrix"
        ),
    },
    "town": {
        "train": words(
            "ravensburg montelimar timbuktu saskatoon albuquerque valparaiso kilmarnock winterthur"
        ),
        "rl": words("novgorod tallahassee salamanca rotterdam mandalay bratislava cartagena"),
        "test": words(
            "samarkand antananarivo gothenburg kathmandu casablanca montevideo ljubljana "
            "aberystwyth trondheim"
        ),
    },
    "brand": {
        "train": words(
            "zentrix calvora brightwell omnitek luminara velocore nordwick hexaline pinnatel "
            "solvanto"
        ),
        "rl": words("quantrel mirabix fenwood altavera droneto kestrion silverbyte ponderosa"),
        "test": words(
            "vextora harmondale cobalux trellica zaphiro maplecore ostranix bluefenn grandivo "
            "tarquell"
        ),
    },
}

GRAMMAR = Grammar(SLOTS, TOPICS, KEYWORD_TEMPLATES, KEYWORDS, polish=polish)
