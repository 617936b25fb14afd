import type { MailKind } from '../db/mail-repo.ts'

/** What a mail says, and with what. */
export interface MailText {
  readonly subject: string
  readonly text: string
}

const minutesOf: Readonly<Record<MailKind, number>> = {
  password_reset: 60,
  email_verification: 24 * 60,
  invitation: 7 * 24 * 60,
  registration: 24 * 60,
}

/** How long the token of such a mail is good, in minutes. */
export function lifeMinutesOf(kind: MailKind): number {
  return minutesOf[kind]
}

interface Words {
  readonly subject: string
  readonly why: string
  readonly command: string
  readonly until: string
}

const words: Readonly<Record<MailKind, Words>> = {
  password_reset: {
    subject: 'Set a new password / 重置密码',
    why: 'Somebody, you we hope, wants to set a new password for your Cloudphone account. If it was not you, do nothing.\n有人（希望是您本人）申请重置您的 Cloudphone 账户密码。如非本人操作，请忽略此邮件。',
    command: 'cloudphone password reset --token',
    until: 'It is good once, within an hour. / 一小时内有效，仅可使用一次。',
  },
  email_verification: {
    subject: 'Confirm your e-mail / 验证邮箱',
    why: 'Please confirm that this mailbox is yours.\n请确认此邮箱属于您。',
    command: 'cloudphone email verify --token',
    until: 'It is good once, within a day. / 一天内有效，仅可使用一次。',
  },
  invitation: {
    subject: 'You are invited to Cloudphone / 邀请您加入 Cloudphone',
    why: 'You have been invited to Cloudphone: choose a name and a password.\n您被邀请加入 Cloudphone，请设置姓名和密码。',
    command: 'cloudphone invitations accept --token',
    until: 'It is good once, within a week. / 七天内有效，仅可使用一次。',
  },
  registration: {
    subject: 'Your Cloudphone account / 注册 Cloudphone',
    why: 'Somebody, you we hope, wants to make a Cloudphone account with this e-mail. If it was not you, do nothing.\n有人（希望是您本人）使用此邮箱注册 Cloudphone。如非本人操作，请忽略此邮件。',
    command: 'cloudphone invitations accept --token',
    until: 'It is good once, within a day. / 一天内有效，仅可使用一次。',
  },
}

/** The mail that brings a token. `linkUrl`: the page that takes tokens, where there is one. */
export function textWithToken(kind: MailKind, token: string, linkUrl: string | undefined): MailText {
  const { subject, why, command, until } = words[kind]
  const link = linkUrl === undefined ? '' : `${linkUrl}/${kind}?token=${token}\n\n`
  return { subject, text: `${why}\n\n${link}${command} ${token}\n\n${until}\n` }
}

/** For who wants to register with an e-mail that has an account: only the mailbox's owner learns of it. */
export const textOfKnownAccount: MailText = {
  subject: words.registration.subject,
  text: 'There is a Cloudphone account with this e-mail already. Sign in with it, or set a new password.\n此邮箱已注册 Cloudphone，请直接登录或重置密码。\n\ncloudphone password forgot\n',
}
