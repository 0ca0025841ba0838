"""HTML of mail programs becomes lines; what they mark as a quote is one."""

from __future__ import annotations

import pytest

from steerx_edge.history.mail.html import html_lines, parsed, read_page
from steerx_edge.history.mail.lines import Line
from steerx_edge.history.mail.own_words import parted

GMAIL = """<div dir="ltr">Yes, please.<div><br></div><div>Mo<br clear="all"><div><br></div>
<span class="gmail_signature_prefix">-- </span><br><div class="gmail_signature">Mo Adler</div></div>
</div><br><div class="gmail_quote gmail_quote_container"><div dir="ltr" class="gmail_attr">On Mon,
Jan 5, 2026 at 10:00 AM Ana Lee &lt;<a href="mailto:ana@example.org">ana@example.org</a>&gt;
wrote:<br></div><blockquote class="gmail_quote" style="margin:0px 0px 0px 0.8ex;border-left:1px
solid"><div>Tea?</div></blockquote></div>"""
OUTLOOK = """<html xmlns:o="urn:schemas-microsoft-com:office:office"><head><style>p{}</style></head>
<body><div class="WordSection1"><p class="MsoNormal">Yes, please.<o:p></o:p></p>
<p class="MsoNormal"><o:p>&nbsp;</o:p></p><p class="MsoNormal">Mo<o:p></o:p></p>
<div style="border:none;border-top:solid #E1E1E1 1.0pt"><p class="MsoNormal"><b>From:</b> Ana Lee
&lt;ana@example.org&gt; <br><b>Sent:</b> Monday, January 5, 2026 10:00 AM<br><b>To:</b> Mo<br>
<b>Subject:</b> Tea</p></div><p class="MsoNormal">Tea?</p></div></body></html>"""
APPLE = """<html><body style="overflow-wrap: break-word;">Yes, please.<div><br></div><div>Mo<br>
<div><br><blockquote type="cite"><div>On 5 Jan 2026, at 10:00, Ana Lee &lt;ana@example.org&gt;
wrote:</div><br class="Apple-interchange-newline"><div>Tea?</div></blockquote></div></div>
</body></html>"""
THUNDERBIRD = """<html><body><p>Yes, please.</p><p>Mo</p><div class="moz-cite-prefix">On 05/01/2026
10:00, Ana Lee wrote:<br></div><blockquote type="cite" cite="mid:1"><p>Tea?</p></blockquote>
<pre class="moz-signature" cols="72">--
Mo Adler</pre></body></html>"""
YAHOO = """<div>Yes, please.<br></div><div><br></div><div>Mo</div><div class="yahoo_quoted">
<div>On Monday, January 5, 2026 at 10:00, Ana Lee &lt;ana@example.org&gt; wrote:</div>
<div>Tea?</div></div>"""


@pytest.mark.parametrize("html", [GMAIL, OUTLOOK, APPLE, THUNDERBIRD, YAHOO])
def test_replies_of_programs(html: str) -> None:
    parts = parted(html_lines(html), is_wrapped=False)
    assert (parts.text(), parts.answered) == ("Yes, please.\n\nMo", "Tea?")


def test_answers_between_quotes_in_gmail() -> None:
    quote = '<blockquote class="gmail_quote" style="border-left:1px solid">{}</blockquote>'
    html = (
        '<div dir="ltr">Hi Ana,</div><div class="gmail_quote gmail_quote_container">'
        '<div class="gmail_attr">On Mon, Jan 5, 2026 at 10:00 AM Ana wrote:<br></div>'
        f"{quote.format('Tea?')}<div>Yes.</div>{quote.format('Cake?')}<div>No.</div></div>"
    )
    parts = parted(html_lines(html), is_wrapped=False)
    assert (parts.text(), parts.answered) == ("Hi Ana,\n\nYes.\n\nNo.", "Tea?\n\nCake?")


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("one<br>two<br><br>three", "one\ntwo\n\nthree"),
        ("<div>one</div><div>two</div>", "one\ntwo"),
        ("<p>one</p><p>two</p>", "one\n\ntwo"),
        ('<p style="margin:0">one</p><p style="margin:0">two</p>', "one\ntwo"),
        ("one\n  <b>two</b> three&amp;four", "one two three&four"),
        ("<ul><li>one</li><li>two</li></ul>", "- one\n- two"),
        ("<ul><li><p>one</p></li><li><p>two</p></li></ul>", "- one\n- two"),
        ("<pre>one\n  two</pre>", "one\n  two"),
        ("<table><tr><td>one</td><td>two</td></tr></table>", "one two"),
        ("one<style>p{}</style><!-- two --><span style='display: none'>three</span>", "one"),
        ("t&#8203;ea&nbsp;time", "tea time"),
        ("<p>unclosed <b>bold<p>next", "unclosed bold\n\nnext"),
    ],
)
def test_text(html: str, text: str) -> None:
    assert "\n".join(line.text for line in html_lines(html)).strip() == text


def test_depth() -> None:
    html = "own<blockquote>one<blockquote>two</blockquote>one</blockquote>own<br>&gt; marked"
    assert [line for line in html_lines(html) if line.text] == [
        Line("own"),
        Line("one", 1),
        Line("two", 2),
        Line("one", 1),
        Line("own"),
        Line("marked", 1),
    ]


def test_an_indented_paragraph_is_no_quote() -> None:
    html = '<blockquote style="margin:0 0 0 40px;border:none;padding:0px">own</blockquote>'
    assert Line("own") in html_lines(html)


def test_deeply_nested_elements() -> None:
    deep = "<div>" * 5000 + "own" + "</div>" * 5000
    assert Line("own") in html_lines(deep)


def test_elements_keep_their_kind_in_512_levels() -> None:
    page = parsed("<div>" * 1000 + "own" + "</div>" * 1000 + "<ul><li>two</ul>")
    assert len(page.css("div")) == 512
    assert len(page.css("ul")) == 1
    assert page.root is not None
    assert [line.text for line in read_page([page.root]).lines if line.text] == ["own", "- two"]
