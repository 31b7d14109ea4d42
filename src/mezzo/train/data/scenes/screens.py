"""Screens: windows with dialogs and buttons, telephones with settings."""

from __future__ import annotations

from mezzo.train.data import colours
from mezzo.train.data.colours import RGB
from mezzo.train.data.material import Material
from mezzo.train.data.picture import Canvas
from mezzo.train.data.scenes.common import Box, Pen, Questions, Wording, ink_on, mixed, pen, rectangle
from mezzo.train.data.vocabulary import FIRST_NAMES, Halves

TITLES = Halves(
    ("Settings", "Untitled", "Downloads", "Mail", "Calculator", "Editor", "Photos", "Music", "Login", "Update",
     "Printer", "Backup", "Search", "Contacts", "Calendar", "Terminal"),
    ("Options", "Inbox", "Notes", "Player", "Sign in", "Installer", "Gallery", "Clock"),
)  # fmt: skip
MESSAGES = Halves(
    ("Save changes?", "Delete file?", "File not found", "Update available", "Are you sure?", "Disk is full",
     "No connection", "Wrong password", "Restart now?", "Upload complete", "Access denied", "Print document?",
     "Battery low", "Open the file?", "Server error", "Download failed"),
    ("Discard draft?", "Low memory", "Replace the file?", "Sync finished", "Page not found", "Log out now?",
     "Invalid code", "Try again later"),
)  # fmt: skip
BUTTONS = Halves(
    (
        "OK",
        "Cancel",
        "Yes",
        "No",
        "Save",
        "Delete",
        "Retry",
        "Close",
        "Next",
        "Back",
        "Help",
        "Open",
        "Apply",
        "Send",
    ),
    ("Accept", "Abort", "Skip", "Done", "Later", "Ignore", "Exit", "Continue"),
)
STATUSES = Halves(
    (
        "Ready",
        "Loading...",
        "Saved",
        "Offline",
        "Connected",
        "Line 12",
        "3 files",
        "Done.",
        "50% done",
        "2 new",
    ),
    ("Idle", "Syncing...", "Online", "Page 7", "9 items", "80% full"),
)
SWITCHES = Halves(
    (
        "Wi-Fi",
        "Bluetooth",
        "Sound",
        "Location",
        "Dark mode",
        "Alarm",
        "Airplane mode",
        "Camera",
        "Updates",
        "Vibrate",
    ),
    ("Hotspot", "Night light", "Roaming", "Backup", "Privacy", "Alerts"),
)
MENUS = Halves(("File", "Edit", "View", "Tools", "Help", "Window"), ("Insert", "Format", "Go", "Share"))
REMARKS = Halves(
    (
        "Call me",
        "See you soon",
        "On my way",
        "Thanks!",
        "Where are you?",
        "Good morning",
        "Meeting at 3",
        "Lunch?",
    ),
    ("Running late", "Nice work", "Call you back", "At home now", "Happy birthday"),
)

TITLE = Wording(
    ("What is the title of the window?", "Which app is open?", "What is the title at the top?"),
    ("Name the program on the screen.", "Read the title bar."),
    "screen",
)
MESSAGE = Wording(
    ("What does the dialog say?", "What message is shown?", "What is the message?"),
    ("Which notice is on the screen?", "Read the message."),
    "screen",
)
RIGHT = Wording(
    ("Which button is on the right?", "What does the right button say?"),
    ("Name the rightmost button.",),
    "screen",
)
LEFT = Wording(
    ("Which button is on the left?", "What does the left button say?"),
    ("Name the leftmost button.",),
    "screen",
)
PRESENT = Wording(
    ("Is there a button {button}?", "Do you see the button {button}?"),
    ("Can {button} be pressed?",),
    "screen",
)
STATUS = Wording(
    ("What does the status bar say?", "What is the status?"), ("Read the line at the bottom.",), "screen"
)
TIME = Wording(
    ("What time is it?", "What time does the phone show?"), ("Read the clock of the phone.",), "screen"
)
BATTERY = Wording(
    ("What is the battery level?", "How full is the battery?"),
    ("State the charge of the battery.",),
    "screen",
)
SWITCH = Wording(
    ("Is {switch} on or off?", "Is {switch} switched on or off?"),
    ("Tell me the state of {switch}: on or off?",),
    "screen",
)
HOW_MANY_ON = Wording(("How many switches are on?",), ("Count the switches that are on.",), "screen")
SENDER = Wording(('Who wrote "{text}"?', 'Who sent "{text}"?'), ('From whom is "{text}"?',), "screen")
TEXT = Wording(
    ("What did {name} write?", "What does {name} say?"), ("Read the message of {name}.",), "screen"
)

_ACCENTS = ("blue", "green", "purple", "red", "orange", "grey", "black")


def screen(material: Material, width: int, height: int) -> Canvas:
    """Draw a telephone where the picture is high, else a window, and ask what is on it."""
    if height > 1.15 * width or (height > 0.9 * width and material.rng.random() < 0.4):
        return _phone(material, width, height)
    return _window(material, width, height)


def _look(material: Material) -> tuple[RGB, RGB, str, RGB]:
    """Return paper, ink, and the name and colour of what stands out."""
    rng = material.rng
    dark = rng.random() < 0.3
    paper: RGB = (rng.randint(20, 45),) * 3 if dark else (rng.randint(228, 255),) * 3
    name = rng.choice(_ACCENTS)
    while True:
        accent = colours.shade(rng, name)
        if colours.distance(accent, paper) > 60:
            return paper, (235, 235, 235) if dark else (25, 25, 30), name, accent
        name = rng.choice(_ACCENTS)


def _window(material: Material, width: int, height: int) -> Canvas:
    rng = material.rng
    paper, ink, name, accent = _look(material)
    canvas = Canvas(width, height, colours.any_colour(rng))
    letters = pen(material, canvas, ink, 7.5, 20)
    questions = Questions(material)
    inset_x, inset_y = rng.uniform(0, 0.04) * width, rng.uniform(0, 0.04) * height
    left, top, right, bottom = inset_x, inset_y, width - 1 - inset_x, height - 1 - inset_y
    canvas.draw.rectangle((left, top, right, bottom), fill=paper)
    bar = letters.height * rng.uniform(1.1, 1.4)
    pad = 0.5 * letters.size
    canvas.area("rectangle", name, accent, rectangle((left, top, right, top + bar)))
    on_bar = letters.in_ink(ink_on(accent))
    mark = 0.28 * letters.size
    cross_x, middle = right - pad - mark, top + bar / 2
    for sign in (-1, 1):
        canvas.draw.line(
            (cross_x - mark, middle - sign * mark, cross_x + mark, middle + sign * mark), on_bar.ink, 2
        )
    title = letters.first_that_fits(lambda: TITLES.pick(material), cross_x - left - 3 * pad)
    if title:
        on_bar.write(left + pad, middle, title)
        questions.add(TITLE, title)
    top += bar
    if bottom - top > 5.5 * letters.height and rng.random() < 0.5:
        top = _menu(material, letters, (left, top, right, bottom), pad)
    if bottom - top > 4.4 * letters.height and rng.random() < 0.6:
        bottom -= letters.height * 1.15
        canvas.draw.line((left, bottom, right, bottom), fill=mixed(paper, ink, 0.4))
        status = letters.first_that_fits(lambda: STATUSES.pick(material), right - left - 2 * pad)
        letters.write(left + pad, bottom + 0.58 * letters.height, status)
        if status:
            questions.add(STATUS, status)
    _dialog(material, letters, (left, top, right, bottom), (name, accent), paper, questions)
    questions.ask(canvas)
    return canvas


def _menu(material: Material, letters: Pen, box: Box, pad: float) -> float:
    left, top, right, _ = box
    x = left + pad
    for entry in MENUS.sample(material, material.rng.randint(2, 5)):
        if x + letters.width(entry) > right - pad:
            break
        letters.write(x, top + 0.65 * letters.height, entry)
        x += letters.width(entry) + letters.size
    return top + 1.3 * letters.height


def _dialog(
    material: Material, letters: Pen, box: Box, accent: tuple[str, RGB], paper: RGB, questions: Questions
) -> None:
    """Draw a message with one to three buttons beneath, in a frame where there is room for one."""
    rng, draw = material.rng, letters.canvas.draw
    left, top, right, bottom = box
    if bottom - top > 6 * letters.height and rng.random() < 0.6:  # a frame
        left, right = left + 0.06 * (right - left), right - 0.06 * (right - left)
        high = min(bottom - top - letters.size, letters.height * rng.uniform(4.5, 6.5))
        top += (bottom - top - high) * rng.uniform(0.2, 0.8)
        bottom = top + high
        draw.rectangle(
            (left, top, right, bottom),
            fill=mixed(paper, letters.ink, 0.05),
            outline=mixed(paper, letters.ink, 0.5),
        )
    pad, button_high = 0.7 * letters.size, letters.height * 1.25
    message = letters.first_that_fits(lambda: MESSAGES.pick(material), right - left - 2 * pad)
    if message:
        middle = top + (bottom - button_high - pad - top) / 2
        anchor = rng.choice((0.0, 0.5))
        letters.write(left + pad + anchor * (right - left - 2 * pad), middle, message, anchor)
        questions.add(MESSAGE, message)
    wanted = BUTTONS.sample(material, 3 if rng.random() < 0.4 else 2)
    wide = letters.widest(wanted) + 2 * pad
    names = wanted[: max(1, int((right - left - pad) / (wide + pad)))]
    wide = min(wide, right - left - 2 * pad)
    x = right - len(names) * (wide + pad)
    if rng.random() < 0.5:
        x = (left + right - len(names) * (wide + pad) + pad) / 2
    round_by = rng.choice((0, 3, button_high / 2))
    main = rng.randrange(-1, len(names))  # the one that stands out
    y = bottom - pad - button_high
    for number, name in enumerate(names):
        fill = accent[1] if number == main else mixed(paper, letters.ink, 0.12)
        draw.rounded_rectangle(
            (x, y, x + wide, y + button_high), round_by, fill, mixed(fill, letters.ink, 0.4)
        )
        ink = ink_on(fill) if number == main else letters.ink
        letters.in_ink(ink).write(x + wide / 2, y + button_high / 2, name, 0.5)
        x += wide + pad
    questions.add(PRESENT, "yes", button=rng.choice(names))
    questions.add(
        PRESENT, "no", button=rng.choice([name for name in BUTTONS.of(material) if name not in names])
    )
    if len(names) > 1:
        questions.add(LEFT, names[0])
        questions.add(RIGHT, names[-1])


def _phone(material: Material, width: int, height: int) -> Canvas:
    rng = material.rng
    paper, ink, name, accent = _look(material)
    canvas = Canvas(width, height, paper)
    letters = pen(material, canvas, ink, 9, 17)
    questions = Questions(material)
    pad = 0.6 * letters.size
    clock, charge = material.time(), f"{rng.randint(1, 100)}%"
    middle = 0.3 * letters.height + letters.height / 2
    swapped = material.split == "held_out"  # the clock stands on the left wherever it is trained on
    letters.write(pad, middle, charge if swapped else clock)
    letters.write(width - pad, middle, clock if swapped else charge, 1)
    questions.add(TIME, clock)
    questions.add(BATTERY, charge)
    top = middle + letters.height * 0.75
    title = letters.first_that_fits(lambda: TITLES.pick(material), width - 2 * pad)
    if title:
        high = letters.height * 1.5
        if rng.random() < 0.6:
            canvas.area("rectangle", name, accent, rectangle((0, top, width, top + high)))
            letters.in_ink(ink_on(accent)).write(pad, top + high / 2, title)
        else:
            letters.write(width / 2, top + high / 2, title, 0.5)
        questions.add(TITLE, title)
        top += high + 0.2 * letters.height
    box = (pad, top, width - pad, height - pad)
    if rng.random() < 0.5 and height - pad - top > 5 * letters.height:
        _chat(material, letters, box, questions)
    else:
        _switches(material, letters, box, accent, questions)
    questions.ask(canvas)
    return canvas


def _switches(material: Material, letters: Pen, box: Box, accent: RGB, questions: Questions) -> None:
    rng, draw = material.rng, letters.canvas.draw
    left, top, right, bottom = box
    step = letters.height * rng.uniform(1.25, 1.8)
    off = mixed(letters.canvas.paper, letters.ink, 0.3)
    radius = 0.42 * letters.size
    states = []
    for name in SWITCHES.sample(material, min(rng.randint(2, 7), int((bottom - top) / step))):
        if letters.width(name) > right - left - 5 * radius:
            continue
        is_on = rng.random() < 0.5
        middle = top + step / 2
        letters.write(left, middle, name)
        x = right - 4 * radius
        draw.rounded_rectangle((x, middle - radius, right, middle + radius), radius, accent if is_on else off)
        knob = (right - radius if is_on else x + radius, middle)
        small = radius * 0.75
        draw.ellipse(
            (knob[0] - small, knob[1] - small, knob[0] + small, knob[1] + small), fill=(255, 255, 255)
        )
        questions.add(SWITCH, "on" if is_on else "off", switch=name)
        states.append(is_on)
        top += step
    if len(states) > 1:
        questions.add(HOW_MANY_ON, str(sum(states)))


def _chat(material: Material, letters: Pen, box: Box, questions: Questions) -> None:
    rng = material.rng
    left, top, right, bottom = box
    names, texts = FIRST_NAMES.sample(material, 5), REMARKS.sample(material, 5)
    bubble = mixed(letters.canvas.paper, letters.ink, 0.1)
    step = letters.height * 2.7
    for name, text in list(zip(names, texts, strict=True))[: int((bottom - top) / step)]:
        wide = max(letters.width(name), letters.width(text)) + letters.size
        if wide > right - left:
            continue
        x = left if rng.random() < 0.6 else right - wide
        area = (x, top, x + wide, top + letters.height * 2.4)
        letters.canvas.draw.rounded_rectangle(area, letters.size / 2, fill=bubble)
        letters.write(x + letters.size / 2, top + 0.7 * letters.height, name)
        letters.write(x + letters.size / 2, top + 1.75 * letters.height, text)
        questions.add(SENDER, name, text=text)
        questions.add(TEXT, text, name=name)
        top += step
