"""What the names of folders and labels say, in the languages of mail programs."""

from __future__ import annotations

import re

_SENT = (
    "sent|sent items|sent messages|sent mail|outbox|gesendet|gesendete|gesendete objekte|"
    "gesendete elemente|éléments envoyés|messages envoyés|envoyés|enviados|elementos enviados|"
    "mensajes enviados|itens enviados|e-mails enviados|enviadas|posta inviata|inviata|inviati|"
    "elementi inviati|verzonden|verzonden items|skickat|skickade|skickade objekt|sendt|sendte|"
    "sendt post|sendte elementer|lähetetyt|wysłane|elementy wysłane|odeslané|odeslaná pošta|"
    "отправленные|gönderilmiş|gönderilmiş öğeler|gönderilmiş postalar|送信済み|送信済みメール|"
    "送信済みアイテム|已发送|已发送邮件|已傳送|寄件備份|보낸편지함|보낸 메일함"
)
_DRAFTS = (
    "drafts?|templates|entwürfe|vorlagen|brouillons|modèles|borradores|rascunhos|bozze|concepten|"
    "utkast|kladder|luonnokset|szkice|wersje robocze|черновики|taslaklar|下書き|草稿|임시보관함"
)
_SPAM = (
    "spam|junk|junk e-?mail|bulk mail|spamverdacht|indésirables|courrier indésirable|"
    "correo no deseado|lixo eletrônico|posta indesiderata|ongewenste e-?mail|skräppost|uønsket|"
    "roskaposti|спам|迷惑メール|垃圾邮件"
)
_SUFFIX = re.compile(r"(?i)\.(?:mbox|mbx|sbd|eml|zip)$|[- _]?\d*$")
_SENT_NAME, _DRAFTS_NAME, _SPAM_NAME = (
    re.compile(names, re.IGNORECASE) for names in (_SENT, _DRAFTS, _SPAM)
)


def is_sent(name: str) -> bool:
    """Whether a folder or a label holds what its owner sent."""
    return bool(_SENT_NAME.fullmatch(_plain(name)))


def is_drafts(name: str) -> bool:
    """Whether a folder or a label holds drafts and templates."""
    return bool(_DRAFTS_NAME.fullmatch(_plain(name)))


def is_spam(name: str) -> bool:
    """Whether a folder or a label holds spam, which may be in its owner's name."""
    return bool(_SPAM_NAME.fullmatch(_plain(name)))


def _plain(name: str) -> str:
    """The last part of a path, or of `INBOX.Sent`, without a suffix or a number."""
    last = re.split(r"[/\\]", name.strip().rstrip("/"))[-1]
    last = _SUFFIX.sub("", _SUFFIX.sub("", last)).strip()
    return re.split(r"\.", last)[-1].strip().strip("[]\"'")
