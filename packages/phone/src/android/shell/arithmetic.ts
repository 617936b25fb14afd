import type { ArithmeticExpression } from 'unbash'
import { ExpansionError } from './expand.ts'

/** The value of `$(( ... ))`: C's integers of 32 bits, as mksh computes. */
export function evaluate(
  expression: ArithmeticExpression,
  scope: { variable(name: string): string | undefined; assign(name: string, value: string): void },
): number {
  const value = (each: ArithmeticExpression): number => evaluate(each, scope)
  switch (expression.type) {
    case 'ArithmeticGroup':
      return value(expression.expression)
    case 'ArithmeticWord':
      return number(expression.value, scope)
    case 'ArithmeticTernary':
      return value(expression.test) === 0 ? value(expression.alternate) : value(expression.consequent)
    case 'ArithmeticUnary':
      return unary(expression.operator, value(expression.operand))
    case 'ArithmeticBinary': {
      const { operator, left } = expression
      if (operator.endsWith('=') && !['==', '!=', '<=', '>='].includes(operator)) {
        if (left.type !== 'ArithmeticWord') throw new ExpansionError('assignment to a non-variable')
        const right = value(expression.right)
        const result =
          operator === '=' ? right : binary(operator.slice(0, -1), number(left.value, scope), right)
        scope.assign(left.value, String(result))
        return result
      }
      if (operator === '&&') return value(left) !== 0 && value(expression.right) !== 0 ? 1 : 0
      if (operator === '||') return value(left) !== 0 || value(expression.right) !== 0 ? 1 : 0
      return binary(operator, value(left), value(expression.right))
    }
    default:
      throw new ExpansionError('command substitution in arithmetic is not supported by this shell')
  }
}

function number(word: string, scope: { variable(name: string): string | undefined }): number {
  const name = word.replace(/^\$/, '').replace(/^\{(.*)\}$/, '$1')
  const text = /^[A-Za-z_]/.test(name) || word.startsWith('$') ? scope.variable(name) || '0' : word
  const parsed = Number(text)
  if (!Number.isFinite(parsed)) throw new ExpansionError(`${text}: unexpected '${text}'`)
  return parsed | 0
}

function unary(operator: string, operand: number): number {
  if (operator === '-') return -operand | 0
  if (operator === '+') return operand
  if (operator === '!') return operand === 0 ? 1 : 0
  if (operator === '~') return ~operand
  throw new ExpansionError(`${operator}: not supported by this shell`)
}

function binary(operator: string, left: number, right: number): number {
  switch (operator) {
    case '+':
      return (left + right) | 0
    case '-':
      return (left - right) | 0
    case '*':
      return Math.imul(left, right)
    case '/':
    case '%':
      if (right === 0) throw new ExpansionError('divide by zero')
      return operator === '/' ? Math.trunc(left / right) | 0 : (left % right) | 0
    case '<<':
      return left << right
    case '>>':
      return left >> right
    case '&':
      return left & right
    case '|':
      return left | right
    case '^':
      return left ^ right
    case '==':
      return Number(left === right)
    case '!=':
      return Number(left !== right)
    case '<':
      return Number(left < right)
    case '<=':
      return Number(left <= right)
    case '>':
      return Number(left > right)
    case '>=':
      return Number(left >= right)
    default:
      throw new ExpansionError(`${operator}: not supported by this shell`)
  }
}
