"""Words as the search compares them: cut to a stem, forgiven a typing error, with others of like meaning."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_WORD = re.compile(r"[^\W_]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_APOSTROPHE = re.compile(r"[’']s?\b")
_EMAIL = re.compile(r"\be-?mails?\b", re.IGNORECASE)

STOP = frozenset(
    re.findall(
        r"\w+",
        "a about all am an and any are as at be been by can could did do does every for from had has have "
        "how i if in into is it its let may me my now of on onto or our out over please should so some "
        "somebody someone that the their them then there these they this those to up us want was we were "
        "what when where which who whom will with would you your",
    )
)

# Members of a line stand for one another in part. A word may be in several lines.
_ALIKE = """
create make add new open start set-up file raise register write build draft record log put
add attach put append insert include
get read show look fetch retrieve detail view display pull check see tell open inspect
list show all which every overview enumerate browse
search find look query locate filter
send post write message notify tell ping mail drop shoot
update edit change modify set adjust correct replace rename fix bump raise lower
delete remove drop erase trash discard rid destroy clear
cancel abort stop call-off end quit
close resolve finish complete done
archive hide shelve
assign reassign give hand owner responsible delegate
comment remark note reply answer respond feedback discussion annotation
reply answer respond back
ticket issue bug task defect request item story case todo card
task todo item card issue
email mail message inbox letter
message text chat dm
sms text
phone call ring dial
contact person customer lead people client subscriber user member
customer client buyer shopper
company organisation organization account business firm
people person user member teammate colleague staff participant
user account
channel room
document doc page wiki note article file
file document attachment pdf picture photo
folder directory
picture image photo icon render screenshot
repository repo project codebase
pull-request merge-request pr mr review
merge squash
branch ref
commit change history
build pipeline workflow ci run check deployment
deployment deploy release ship rollout
rollback revert undo back
site website web page homepage
cms collection
publish live online
log logs output line
error crash exception bug failure
incident outage alert page
on-call duty rotation shift responder
monitor alert alarm check
mute silence snooze downtime
metric graph chart measure
calendar schedule agenda event
event meeting appointment booking call standup
meeting appointment booking slot
book reserve schedule
free available availability busy slot
postpone reschedule move shift delay
invite attendee guest participant
share link access permission collaborate public url
copy duplicate clone
move transfer relocate
upload put save store
download export
save store keep put
table sheet grid spreadsheet tab
row record line entry
column field property
cell range value
database table data sql postgres
record entry object row
deal opportunity
pipeline stage
stage status state phase step
lead prospect
form survey questionnaire poll quiz
answer response submission result reply
question field
statistic report figure number metric analytics performance stat
open click
newsletter campaign broadcast mailing
audience list subscriber segment
subscribe signup sign join
unsubscribe optout opt-out
bounce undeliverable undelivered
template layout
invoice bill
payment pay charge transaction card
refund money-back reimburse
subscription plan membership
price cost amount
product item article
order purchase
balance money credit funds
checkout payment-link
domain dns hostname zone
cache purge flush
variable env secret configuration setting
label tag
emoji reaction react
topic subject title
thread conversation
conversation chat thread discussion
permalink link url
team group
board kanban
sprint cycle iteration
project initiative
time hour effort track worklog
due deadline date
priority urgency severity
version revision history
function worker lambda
pause suspend
restore resume unpause reactivate
zap automation workflow
stock inventory
"""


def stems(text: str) -> list[str]:
    """The words of a text that say something, as stems, in their order."""
    plain = _EMAIL.sub("email", _APOSTROPHE.sub("", _CAMEL.sub(" ", text)))
    return [stem(word) for word in _WORD.findall(plain.lower()) if word not in STOP]


def stem(word: str) -> str:
    """Without the ending of a plural or a verb: issues, issue → issu; sending → send; queries → query."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    for ending in ("s", "ing", "ed"):
        if len(word) - len(ending) >= 3 and word.endswith(ending) and not word.endswith("ss"):
            word = word.removesuffix(ending)
            if ending != "s" and word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
    return word.removesuffix("e") if len(word) > 3 else word


def _groups(lines: str) -> dict[str, frozenset[str]]:
    alike: dict[str, set[str]] = {}
    for line in lines.split("\n"):
        members = {stem(word.replace("-", "")) for word in line.split()}
        for member in members:
            alike.setdefault(member, set()).update(members - {member})
    return {member: frozenset(others) for member, others in alike.items()}


_OTHERS = _groups(_ALIKE)


def alike(word: str) -> frozenset[str]:
    """The stems that may stand for this one."""
    return _OTHERS.get(word, frozenset())


@dataclass(frozen=True, slots=True)
class Speller:
    """Finds the known word that a mistyped one was meant: a letter more, less or other, or two swapped."""

    shortened: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, words: Iterable[str]) -> "Speller":
        """One that knows these words."""
        shortened: dict[str, list[str]] = {}
        for word in sorted(set(words)):
            if len(word) >= 4 and word.isalpha():
                for form in _without_one(word):
                    shortened.setdefault(form, []).append(word)
        return cls({form: tuple(meant) for form, meant in shortened.items()})

    def meant(self, word: str) -> tuple[str, ...]:
        """Known words at that distance; none for a short word or one with a digit."""
        if len(word) < 4 or not word.isalpha():
            return ()
        found = {near for form in _without_one(word) for near in self.shortened.get(form, ())}
        return tuple(sorted(near for near in found if near[0] == word[0]))


def _without_one(word: str) -> Iterator[str]:
    yield word
    for at in range(len(word)):
        yield word[:at] + word[at + 1 :]
